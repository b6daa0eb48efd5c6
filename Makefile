# The environment is .venv; every target makes it if need be. Set EXTRA=gpu for a CUDA one,
# EXTRA=onnx for one without TensorFlow, and EXTRA=cluster or EXTRA=cluster-gpu for one with Ray.
PYTHON ?= python3
EXTRA ?= cpu
BIN := .venv/bin
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Where bytecode may not be written, each of the tests' processes would compile everything anew.
export PYTHONDONTWRITEBYTECODE =
INSTALLED := .venv/installed-$(EXTRA)
TOOLS := .venv/installed-tools
SITE := .venv/installed-site
RIVALS := .venv/installed-rivals

.PHONY: install serve images test test-slow test-onnx test-containers soak test-times coverage check docs fuzz bench \
	bench-colours bench-load bench-memory gpu-pack format lock clean

install: $(TOOLS)

$(INSTALLED): requirements/$(EXTRA).lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "Python 3.11 to 3.13 is needed; this is %d.%d. Set PYTHON=" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/$(EXTRA).lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(TOOLS): $(INSTALLED) requirements/train.lock requirements/dev.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/train.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.lock
	touch $@

# What makes the site of the documentation.
$(SITE): $(TOOLS) requirements/docs.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/docs.lock
	touch $@

# What `make bench` compares with.
$(RIVALS): $(TOOLS) requirements/bench.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bench.lock
	touch $@

serve: $(INSTALLED)
	$(BIN)/superres serve

# Two processes: tests that share a service or an engine are one group, run by one of them.
PYTEST := $(BIN)/pytest -q
IN_PARALLEL := -n 2 --dist loadgroup

# What a commit needs.
test: $(TOOLS)
	$(PYTEST) $(IN_PARALLEL)

# What .ci/run adds.
test-slow: $(TOOLS)
	$(PYTEST) $(IN_PARALLEL) -m slow --durations 15

# All of the service's tests where ONNX Runtime is the only runtime, in an environment of its own.
ONNX := .venv-onnx
$(ONNX)/installed: requirements/onnx.lock requirements/dev.lock pyproject.toml
	$(PYTHON) -m venv $(ONNX)
	$(ONNX)/bin/python -m pip install --quiet --require-hashes -r requirements/onnx.lock
	$(ONNX)/bin/python -m pip install --quiet --require-hashes -r requirements/dev.lock
	$(ONNX)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# As TIER="not slow and not soak".
TIER ?= not soak
test-onnx: $(ONNX)/installed
	SUPERRES_RUNTIME=onnxruntime $(ONNX)/bin/pytest -q $(IN_PARALLEL) -m "$(TIER)" \
		--ignore tests/training --ignore superres/importing

# Before a release, on a machine that does nothing else; it writes docs/soak.md.
soak: $(TOOLS)
	$(PYTEST) -m soak -p tests.soak

# Images that run here; the target gpu needs a CUDA machine. BASE=python:3.13-slim takes another base.
IMAGES ?= cpu slim train cluster
images:
	for target in $(IMAGES); do docker build --target $$target --tag superres:$$target \
		--build-arg COMMIT=$$(git rev-parse HEAD 2>/dev/null) --build-arg VERSION=$(VERSION) \
		$(if $(BASE),--build-arg BASE=$(BASE)) . || exit; done

# The images and docker-compose.yml on a Docker engine; it skips where none answers. Compose mounts
# folders of the tests, which have to be where the engine can see them: FOLDER=/tmp/containers, which
# is emptied.
FOLDER ?=
test-containers: $(TOOLS)
	mkdir -p artefacts
	$(PYTEST) -m containers $(if $(FOLDER),--basetemp=$(FOLDER)) --durations 0 \
		--junitxml artefacts/containers.xml -o junit_family=xunit1

# Seconds of setup and call by file and by test, of `make test` or, with MARK="slow", of another tier.
MARK ?= not slow and not soak and not containers
test-times: $(TOOLS)
	mkdir -p artefacts
	$(PYTEST) $(IN_PARALLEL) -m "$(MARK)" -p tests.times --durations 25 --junitxml artefacts/times.xml

coverage: $(TOOLS)
	rm -rf artefacts/coverage
	mkdir -p artefacts/coverage
	$(BIN)/coverage run -m pytest -q $(IN_PARALLEL) -m "not soak and not containers"
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

# The site in artefacts/site: a dead link, a page outside the navigation, or a setting, metric, error,
# parameter or model without a description is an error.
docs: $(SITE)
	$(BIN)/python -m docsite

check: $(TOOLS) docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
		.github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	@# There is no wheel of hadolint for other machines.
	if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; fi
	@# It is in Debian's package prometheus.
	if command -v promtool >/dev/null; then cd deploy/prometheus \
		&& promtool check config prometheus.yml && promtool test rules alerts_test.yml; fi

# Seconds of CPU for each format, then damaged uploads to a service.
FUZZ_SECONDS ?= 60
INPUTS ?= 1000000
fuzz: $(TOOLS)
	PYTHONPATH=. $(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)
	SUPERRES_FUZZ_INPUTS=$(INPUTS) $(BIN)/pytest -q -m soak tests/integration/test_hostile.py -k damaged

bench-colours: $(TOOLS)
	PYTHONPATH=. $(BIN)/python benchmarks/colours.py docs/colours.jpg

bench-load: $(TOOLS)
	PYTHONPATH=. $(BIN)/python benchmarks/load.py

bench-memory: $(TOOLS)
	PYTHONPATH=. $(BIN)/python benchmarks/memory.py --plot docs/memory.png

# As BENCH="--only jpeg png".
BENCH ?=
bench: $(RIVALS)
	PYTHONPATH=. $(BIN)/python benchmarks/speed.py $(BENCH)

# All that a Linux machine with JAX, Git and no network needs to train CONFIG; see docs/how-to/train.md.
# DATA is the folder of the sets.
CONFIG ?= edsr-lite-photo-x3
DATA ?= $(SUPERRES_TRAINING_DATA)
GPU_PYTHON ?= 3.12
GPU_CODE := /superres /training /benchmarks /requirements /pyproject.toml /.gitignore
GPU_PLATFORMS := $(addprefix --platform manylinux,_2_28_x86_64 _2_27_x86_64 _2_17_x86_64 2014_x86_64)
gpu-pack: $(TOOLS)
	rm -rf artefacts/gpu
	$(BIN)/superres-train pack $(CONFIG) --data-root $(DATA) --out artefacts/gpu
	git clone --quiet --depth 1 --filter=blob:limit=100k --sparse \
		--upload-pack "git -c uploadpack.allowFilter=true upload-pack" \
		"file://$(CURDIR)" artefacts/gpu/superres
	git -C artefacts/gpu/superres sparse-checkout set --no-cone $(GPU_CODE)
	sed -n 's/ \\$$//; /^[a-z]/p' requirements/train.lock > artefacts/gpu/constraints
	$(BIN)/python -m pip download --quiet --only-binary :all: --implementation cp \
		--python-version $(GPU_PYTHON) $(GPU_PLATFORMS) --constraint artefacts/gpu/constraints \
		--requirement requirements/jax.in --dest artefacts/gpu/wheels

format: $(TOOLS)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Versions for Python 3.11 to 3.13 at once, with hashes and without an index address.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command "make lock"

lock: $(TOOLS)
	$(COMPILE) pyproject.toml --extra serve --extra tensorflow -o requirements/cpu.lock
	@# All that is in both is the same.
	$(COMPILE) pyproject.toml --extra serve --extra onnx --constraints requirements/cpu.lock \
		-o requirements/onnx.lock
	$(COMPILE) pyproject.toml --extra serve --group gpu --constraints requirements/cpu.lock \
		-o requirements/gpu.lock
	$(COMPILE) pyproject.toml --extra serve --extra tensorflow --extra cluster \
		--constraints requirements/cpu.lock -o requirements/cluster.lock
	$(COMPILE) pyproject.toml --extra serve --extra cluster --group gpu \
		--constraints requirements/gpu.lock -o requirements/cluster-gpu.lock
	$(COMPILE) pyproject.toml --extra train --constraints requirements/cluster.lock \
		--constraints requirements/onnx.lock -o requirements/train.lock
	$(COMPILE) --group dev --constraints requirements/cluster.lock -o requirements/dev.lock
	$(COMPILE) --group docs --constraints requirements/dev.lock --constraints requirements/train.lock \
		--constraints requirements/cluster.lock -o requirements/docs.lock
	$(COMPILE) --group bench --constraints requirements/cluster.lock \
		--constraints requirements/dev.lock -o requirements/bench.lock
	$(COMPILE) --group sbom -o requirements/sbom.lock

clean:
	rm -rf .venv $(ONNX) build *.egg-info
