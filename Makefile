# What CI runs is what a person runs. `make` alone lists the targets.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install run test check audit bench bench-1000 fmt lock clean

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.run: requirements/run.lock requirements/keyring.lock requirements/encryption.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "expected Python 3.11 or newer as $(PYTHON); name another with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --require-hashes -r requirements/build.lock -r requirements/run.lock \
	  -r requirements/keyring.lock -r requirements/encryption.lock
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	$(BIN)/pip install -q --require-hashes -r requirements/dev.lock
	@touch $@

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

web/dist/index.html: web/node_modules/.package-lock.json $(shell find web/src web/public web/tooling web/index.html web/vite.config.ts web/tsconfig.json -type f 2>/dev/null)
	cd web && npm run --silent build

install: $(VENV)/.run web/dist/index.html ## Set up .venv/ and the web build

run: install ## Start everything on this machine: page, API, proxy, tunnel, bridge (ARGS="--port 9000")
	$(BIN)/cloudtolocalllm up $(ARGS)

test: install $(VENV)/.dev ## Run the tests (ARGS="-k tunnel"; JOBS=0 for one process instead of two)
	cd web && npm run --silent test
	$(BIN)/pytest -q -n $(JOBS) --dist loadscope --no-loadscope-reorder $(ARGS)

check: $(VENV)/.dev web/node_modules/.package-lock.json ## Lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	cd web && npm run --silent check

audit: install $(VENV)/.dev ## Have scanners and attacks by others look at it (HOST=app.example.org: the scanners, at yours)
	PYTHON=$(BIN)/python ./scripts/audit_tools
	C2L_AUDIT_HOST=$(HOST) $(BIN)/pytest -q -m audit tests/audit $(ARGS)

bench: install $(VENV)/.dev ## Measure side by side; writes bench/results/latest.json
	$(BIN)/python -m bench $(ARGS)

bench-1000: install $(VENV)/.dev ## 1,000 users with a running stream each, for two minutes
	$(BIN)/python -m bench --only thousand_users $(ARGS)

fmt: $(VENV)/.dev ## Format the sources
	$(BIN)/ruff check --fix-only -q . ; $(BIN)/ruff format .
	cd web && npm run --silent format

lock: $(VENV)/.dev ## Renew the lock files in requirements/
	./scripts/lock

clean: ## Remove what was built and installed here
	rm -rf $(VENV) web/node_modules web/dist build dist bench/results .mypy_cache .ruff_cache .pytest_cache \
	  .hypothesis .import_linter_cache src/*.egg-info
