# Targets: cpu (the default), slim (without TensorFlow), gpu, train, cluster. The models are baked in.
#   docker build --target cpu -t superres .
#   docker build --target slim -t superres-slim .
#   docker build --target cluster -t superres-cluster .
#   docker build --target cluster --build-arg EXTRA=cluster-gpu -t superres-cluster-gpu .
FROM python:3.13-slim AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    SUPERRES_JOBS=/var/lib/superres
# A volume takes its owner from the image.
RUN install -d -m 700 -o 10001 -g 10001 /var/lib/superres
WORKDIR /app

# The environments change less often than the code, so they come first and are cached.
FROM base AS cpu-environment
COPY requirements/cpu.lock requirements/cpu.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r requirements/cpu.lock

FROM base AS slim-environment
COPY requirements/onnx.lock requirements/onnx.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r requirements/onnx.lock

FROM base AS gpu-environment
COPY requirements/gpu.lock requirements/gpu.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r requirements/gpu.lock

FROM base AS cluster-environment
# KubeRay's probes call it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*
ARG EXTRA=cluster
COPY requirements/${EXTRA}.lock requirements/cluster.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r requirements/cluster.lock

FROM cpu-environment AS cpu-code
COPY pyproject.toml README.md LICENSE ./
COPY superres superres
COPY app app
COPY training training
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable .

FROM slim-environment AS slim-code
COPY pyproject.toml README.md LICENSE ./
COPY superres superres
COPY app app
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable .

FROM gpu-environment AS gpu-code
COPY pyproject.toml README.md LICENSE ./
COPY superres superres
COPY app app
COPY training training
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable .

# A node of a Ray cluster: `ray start` makes it one; see docker-compose.yml and deploy/kuberay.
FROM cluster-environment AS cluster
COPY pyproject.toml README.md LICENSE serve.yaml ./
COPY superres superres
COPY app app
COPY training training
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable .
COPY models models
ARG COMMIT=unknown
ENV SUPERRES_COMMIT=$COMMIT RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
VOLUME /var/lib/superres
EXPOSE 8000
CMD ["superres", "serve", "--cluster", "--host", "0.0.0.0"]

# Trains on /data, writes /app/runs and /app/models: see docker-compose.yml.
FROM cpu-code AS train
COPY requirements/train.lock requirements/train.lock
RUN /opt/venv/bin/pip install --no-cache-dir --require-hashes -r requirements/train.lock
USER 10001:10001
ENTRYPOINT ["superres-train"]
CMD ["--help"]

FROM base AS gpu
COPY --from=gpu-code /opt/venv /opt/venv
COPY --from=gpu-code /app /app
COPY models models
ARG COMMIT=unknown
ENV SUPERRES_COMMIT=$COMMIT SUPERRES_DEVICE=gpu:0
USER 10001:10001
VOLUME /var/lib/superres
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-IS", "superres/health.py"]
CMD ["superres", "serve", "--host", "0.0.0.0"]

FROM base AS slim
COPY --from=slim-code /opt/venv /opt/venv
COPY --from=slim-code /app /app
COPY models models
ARG COMMIT=unknown
ENV SUPERRES_COMMIT=$COMMIT SUPERRES_DEVICE=cpu
USER 10001:10001
VOLUME /var/lib/superres
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-IS", "superres/health.py"]
CMD ["superres", "serve", "--host", "0.0.0.0"]

FROM base AS cpu
COPY --from=cpu-code /opt/venv /opt/venv
COPY --from=cpu-code /app /app
COPY models models
ARG COMMIT=unknown
ENV SUPERRES_COMMIT=$COMMIT SUPERRES_DEVICE=cpu
USER 10001:10001
VOLUME /var/lib/superres
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-IS", "superres/health.py"]
CMD ["superres", "serve", "--host", "0.0.0.0"]
