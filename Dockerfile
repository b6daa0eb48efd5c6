# Targets: cpu (the default), slim (without TensorFlow), gpu, train, cluster. The models are baked in.
#   make images                                    all but gpu, with commit and version
#   docker build --target slim -t superres-slim .  one of them
#   docker build --target cluster --build-arg EXTRA=cluster-gpu -t superres-cluster-gpu .
# docs/containers.md tells sizes, how the images are checked, and how the base is renewed.
ARG BASE=python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b
FROM ${BASE} AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    ORT_DISABLE_TELEMETRY=1
WORKDIR /app

# What builds the images and is in none of them: pip, the SBOM's generator, strip.
FROM base AS tools
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/sbom.lock requirements/sbom.lock
RUN python -m venv /opt/tools \
    && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements/sbom.lock
COPY deploy/image/install-packages /opt/tools/bin/

# The commit: the build argument, or that of the clone.
FROM base AS commit
ARG COMMIT=
RUN --mount=type=bind,target=/context \
    git=/context/.git ; head=$(cat $git/HEAD 2>/dev/null) ; ref=${head#ref: } ; \
    [ "$head" = "$ref" ] || head=$(cat "$git/$ref" || sed -n "s, $ref\$,,p" $git/packed-refs) ; \
    head=${COMMIT:-$head} ; echo "${head:-unknown}" > /COMMIT

# The service's code without what its pages show, which is a layer of its own.
FROM base AS code
COPY app app
RUN rm -r app/web/photographs app/web/static

# The environments: pip installs them from outside, and only they are copied into an image.
FROM tools AS cpu-environment
COPY requirements/cpu.lock requirements/cpu.lock
RUN /opt/tools/bin/install-packages requirements/cpu.lock

FROM tools AS slim-environment
COPY requirements/onnx.lock requirements/onnx.lock
RUN /opt/tools/bin/install-packages requirements/onnx.lock

FROM tools AS gpu-environment
COPY requirements/gpu.lock requirements/gpu.lock
RUN /opt/tools/bin/install-packages requirements/gpu.lock

FROM tools AS cluster-environment
ARG EXTRA=cluster
COPY requirements/${EXTRA}.lock requirements/cluster.lock
RUN /opt/tools/bin/install-packages requirements/cluster.lock

# What all images of the service have before their own.
FROM base AS service
# A volume takes owner and mode from the image. Any user of group 0 can write, as OpenShift has it.
RUN install -d -m 770 -o 10001 -g 0 /var/lib/superres
ENV SUPERRES_JOBS=/var/lib/superres
VOLUME /var/lib/superres
EXPOSE 8000
LABEL org.opencontainers.image.title=superres \
      org.opencontainers.image.description="Image super-resolution over HTTP" \
      org.opencontainers.image.licenses=MIT

# In each target, what changes often comes last, and the code is installed before it is there: so a
# change of one line makes new layers of less than a megabyte, and pip does not run again. Of the code,
# pip only wants the folders of packages.
FROM service AS gpu
COPY --link --from=gpu-environment /opt/venv /opt/venv
COPY --link models models
COPY --link pyproject.toml README.md LICENSE ./
RUN --mount=from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,source=deploy/image,target=/opt/image \
    sh /opt/image/install-code \
    && /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
        --output-reproducible -o sbom.cdx.json /opt/venv/bin/python
COPY --link app/web/photographs app/web/photographs
COPY --link app/web/static app/web/static
COPY --link superres superres
COPY --link --from=code /app/app app
COPY --link --from=commit /COMMIT COMMIT
ENV SUPERRES_DEVICE=gpu:0
ARG COMMIT=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.revision=$COMMIT org.opencontainers.image.version=$VERSION
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-IS", "superres/health.py"]
CMD ["superres", "serve", "--host", "0.0.0.0"]

FROM service AS slim
COPY --link --from=slim-environment /opt/venv /opt/venv
COPY --link models models
COPY --link pyproject.toml README.md LICENSE ./
RUN --mount=from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,source=deploy/image,target=/opt/image \
    sh /opt/image/install-code \
    && /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
        --output-reproducible -o sbom.cdx.json /opt/venv/bin/python
COPY --link app/web/photographs app/web/photographs
COPY --link app/web/static app/web/static
COPY --link superres superres
COPY --link --from=code /app/app app
COPY --link --from=commit /COMMIT COMMIT
ENV SUPERRES_DEVICE=cpu
ARG COMMIT=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.revision=$COMMIT org.opencontainers.image.version=$VERSION
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-IS", "superres/health.py"]
CMD ["superres", "serve", "--host", "0.0.0.0"]

# A node of a Ray cluster: `ray start` makes it one; see docker-compose.yml and deploy/kuberay.
FROM service AS cluster
# KubeRay's probes call it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*
COPY --link --from=cluster-environment /opt/venv /opt/venv
COPY --link models models
COPY --link pyproject.toml README.md LICENSE serve.yaml ./
RUN --mount=from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,source=deploy/image,target=/opt/image \
    sh /opt/image/install-code \
    && /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
        --output-reproducible -o sbom.cdx.json /opt/venv/bin/python
COPY --link app/web/photographs app/web/photographs
COPY --link app/web/static app/web/static
COPY --link superres superres
COPY --link --from=code /app/app app
COPY --link --from=commit /COMMIT COMMIT
ENV RAY_USAGE_STATS_ENABLED=0
ARG COMMIT=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.revision=$COMMIT org.opencontainers.image.version=$VERSION
USER 10001:10001
CMD ["superres", "serve", "--cluster", "--host", "0.0.0.0"]

FROM service AS cpu-packages
COPY --link --from=cpu-environment /opt/venv /opt/venv

# Trains on /data, writes /app/runs and /app/models: see docker-compose.yml.
FROM cpu-packages AS train
COPY requirements/train.lock requirements/train.lock
RUN --mount=from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/pip --python /opt/venv/bin/python install \
        --no-cache-dir --require-hashes -r requirements/train.lock
COPY --link models models
COPY --link pyproject.toml README.md LICENSE ./
RUN --mount=from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,source=deploy/image,target=/opt/image \
    sh /opt/image/install-code \
    && /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
        --output-reproducible -o sbom.cdx.json /opt/venv/bin/python
COPY --link app/web/photographs app/web/photographs
COPY --link app/web/static app/web/static
COPY --link superres superres
COPY --link --from=code /app/app app
COPY --link training training
COPY --link --from=commit /COMMIT COMMIT
COPY --link deploy/image/train /usr/local/bin/train
RUN install -d -m 770 -o 10001 -g 0 runs
# Matplotlib's cache of fonts is kept with the runs.
ENV MPLCONFIGDIR=/app/runs/.matplotlib
ARG COMMIT=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.revision=$COMMIT org.opencontainers.image.version=$VERSION
USER 10001:10001
ENTRYPOINT ["train"]
CMD ["--help"]

FROM cpu-packages AS cpu
COPY --link models models
COPY --link pyproject.toml README.md LICENSE ./
RUN --mount=from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,source=deploy/image,target=/opt/image \
    sh /opt/image/install-code \
    && /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
        --output-reproducible -o sbom.cdx.json /opt/venv/bin/python
COPY --link app/web/photographs app/web/photographs
COPY --link app/web/static app/web/static
COPY --link superres superres
COPY --link --from=code /app/app app
COPY --link --from=commit /COMMIT COMMIT
ENV SUPERRES_DEVICE=cpu
ARG COMMIT=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.revision=$COMMIT org.opencontainers.image.version=$VERSION
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-IS", "superres/health.py"]
CMD ["superres", "serve", "--host", "0.0.0.0"]
