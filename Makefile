# `make demo` is the place to start. Every target sets up .venv first, from requirements.lock.
PYTHON ?= python3
PORT ?= 4200
BIN := .venv/bin
STAMP := .venv/.installed

export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

.PHONY: help demo test check bench up lock clean
.DEFAULT_GOAL := help

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(STAMP) ## From the web to a zero-shot classifier on the embedded tiny web: offline, on a CPU, in minutes
	$(BIN)/wit demo

test: $(STAMP) ## Run all tests
	$(BIN)/pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

check: $(STAMP) ## Format, lint, types, imports between the layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## Run the benchmarks
	$(BIN)/python -m benchmarks

up: $(STAMP) ## Prefect server, deployments and worker on this machine, until Ctrl-C (PORT=4200)
	@$(BIN)/python -m flows.stack up --port $(PORT)

lock: ## Resolve pyproject.toml anew into requirements.lock (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
		--extra s3 --extra stack --extra ray --extra export --extra tensorboard --extra wandb --extra dev --extra bench pyproject.toml -o requirements.lock

clean: ## Remove .venv and caches; workspace/ stays
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# uv is much faster and is used where it is installed; pip does the same, both refuse a package whose hash is not in the lock.
$(STAMP): requirements.lock pyproject.toml
	@if uv --version >/dev/null 2>&1; then $(MAKE) --no-print-directory install-uv; \
	else $(MAKE) --no-print-directory install-pip; fi
	@touch $@

.PHONY: install-uv install-pip python-new-enough
install-uv:
	@test -x $(BIN)/python || uv venv --quiet --python ">=3.11" .venv
	@# As pip does: where PYTHONDONTWRITEBYTECODE is set, every process would else compile all that it imports, torch for 3 s.
	uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	uv pip install --quiet --python $(BIN)/python --no-deps --editable .

install-pip: python-new-enough
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@# The lock is complete; --no-deps because img2dataset asks for a package that must not be there (pyproject.toml, [tool.uv]).
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .

python-new-enough:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is missing or older than 3.11. Say which one to use: make PYTHON=python3.11 ..., or install uv." >&2; \
		exit 1; }
