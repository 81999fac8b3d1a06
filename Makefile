# Everything a person types. `make demo` and `make test` work on a fresh clone: Python 3.11+, make, git; nothing else.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
SEEDS ?= 1
WORKERS ?= 2
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
# a bare machine has no environment of ours; a PYTHON that is named is taken
GPU_PYTHON = $(if $(filter file,$(origin PYTHON)),$(firstword $(wildcard $(BIN)/python) $(PYTHON)),$(PYTHON))

.PHONY: help setup demo up clean test quick test-services soak faults lint types fmt all-checks repro compile-pipelines schemas images k8s audit secrets lock sbom gpu-check docs

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

# torch first and alone: with it installed, nothing that follows pulls another build of it
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "Setting up the environment in $(VENV) (a few minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check torch==$$(sed -n 's/^torch==//p' constraints.txt)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(READY_DEV): $(READY)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

setup: $(READY_DEV) ## Create the environment with the development tools

demo: $(READY) ## The whole loop on this machine: simulate, train, adapt, judge, release, predict, report (SEEDS=3 averages)
	@$(BIN)/coda demo run --seed $(SEED) --seeds $(SEEDS)

up: $(READY) ## Keep the demo's stack up: object store, MLflow UI, metrics, trigger; Ctrl-C stops it
	@$(BIN)/coda demo up --seed $(SEED)

clean: ## Forget what demo and tests made (not the environment)
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

test: $(READY_DEV) ## The tests, in WORKERS=2 processes: no Docker, no cluster, no network beyond loopback
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not services and not soak and not faults"

quick: $(READY_DEV) ## The tests of what changed, nearest first, for at most a minute (BASE=main)
	@$(BIN)/python -m tests.quick $(if $(BASE),--base $(BASE))

test-services: $(READY_DEV) ## The tests against real servers from Debian packages (installs and starts what it needs)
	PYTHON=$(BIN)/python bash tests/services/run.sh

soak: $(READY_DEV) ## 200 small batches from 5 sources with faults: nothing lost, memory flat (BATCHES= SOURCES= SEED=)
	BATCHES="$(BATCHES)" SOURCES="$(SOURCES)" SEED="$(SEED)" DELIVER_S="$(DELIVER_S)" $(BIN)/python -m tests.soak

faults: $(READY_DEV) ## Inject faults into the loop at smallest size, print what became of them (CODA_FAULTS_SEED=0)
	$(BIN)/python -m pytest -q -m faults -p no:randomly tests/faults

lint: $(READY_DEV) ## Style, imports, direction of dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(READY_DEV) ## Strict types
	$(BIN)/mypy coda components pipelines benchmarks studies

fmt: $(READY_DEV) ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

repro: $(READY) ## The training steps as a DVC experiment on versioned simulated plates
	$(BIN)/dvc repro
	$(BIN)/dvc metrics show

compile-pipelines: $(READY) ## Write the compiled pipelines beside their sources
	$(BIN)/python -m pipelines.compile

schemas: $(READY) ## Write the JSON schemas of the contracts to docs/schemas
	$(BIN)/coda schemas docs/schemas

gpu-check: ## Rates, feed, memory and cores of a GPU, in at most 8 minutes; a second call resumes (ARGS="--out FOLDER")
	@$(GPU_PYTHON) -m coda.benchmark.gpu_check $(ARGS)

docs: $(READY_DEV) ## The documentation as a site in build/site (no network; a broken link fails)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open build/site/index.html; with search: $(BIN)/python -m http.server -b 127.0.0.1 -d build/site"

images: ## Build the image that runs every component
	bash docker/build.sh

k8s: ## Render the Kubernetes manifests (offline)
	kubectl kustomize k8s/overlays/dev

# the image's own Python and platform; torch with CUDA, from the package index, as the image installs it
lock: $(READY_DEV) ## Write requirements.lock: what the image installs, by SHA-256 (asks the package index)
	$(BIN)/uv pip compile pyproject.toml --extra postgres --extra signing -c constraints.txt --generate-hashes --quiet \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --custom-compile-command "make lock" \
	  --output-file requirements.lock

sbom: $(READY_DEV) ## Write sbom.cdx.json: what requirements.lock puts into the image, as CycloneDX (no network)
	@$(BIN)/python .ci/sbom.py requirements.lock sbom.cdx.json

audit: $(READY_DEV) ## Known vulnerabilities of the locked dependencies; fails, in other words, when nobody could be asked
	@$(BIN)/python .ci/audit.py constraints.txt

secrets: $(READY_DEV) ## Keys and passwords in tracked files; what is none is listed in .secrets.baseline
	@git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --baseline .secrets.baseline --no-verify

all-checks: lint types test ## What CI runs, without the real servers
