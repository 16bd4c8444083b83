# Everything sets itself up: a virtual environment, locked packages, cached binaries.
# `make demo ARGS="--gateway nginx --scenario rollout"` passes flags to the demo.

.DEFAULT_GOAL := help
.PHONY: help setup programs demo test check unit cluster bench docs lock clean

BIN := .venv/bin
ARGS ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make the virtual environment .venv, with the program in .venv/bin
	@.ci/bootstrap

demo: setup ## Run the main job: a real cluster, with and without the guard
	@$(BIN)/upstream-guard demo $(ARGS)

test: setup check programs ## Run every check and test, on a real cluster where this machine can
	@$(BIN)/pytest $(ARGS)

programs: setup
	@[ "$$(uname -s)" != Linux ] || $(BIN)/upstream-guard lab build

check: setup ## Lint, types, import contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

unit: setup ## Run the tests that need no cluster (seconds)
	@$(BIN)/pytest tests/core tests/edges $(ARGS)

cluster: setup ## Run only the tests on the embedded cluster
	@$(BIN)/pytest -m cluster $(ARGS)

bench: setup ## Run the benchmarks of tests/bench
	@$(BIN)/python tests/bench/probe_bench.py $(ARGS)

docs: setup ## Generate docs/reference from the code
	@$(BIN)/python docs/generate.py

lock: setup ## Renew the lock files from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements-operator.lock
	@echo "hatchling>=1.27" | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header - -o requirements-build.lock

clean: ## Remove the virtual environment and caches of this checkout
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo-out
