PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check

.PHONY: setup demo test test-all check docs fix coverage bench-quick batch-strategy clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(PIP) install --quiet -c constraints.txt setuptools wheel
	@$(PIP) install --quiet -c constraints.txt torch
	@$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/python -m examples.demo.run

test: setup
	@$(BIN)/python -m pytest -m "not slow"

test-all: setup
	@$(BIN)/python -m pytest

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --cache-dir build/import_linter --no-logo
	@$(BIN)/mypy -p qwen3_triton
	@$(BIN)/mypy examples benchmarks
	@for folder in tests/*.py tests/*/; do $(BIN)/mypy $$folder || exit 1; done

docs: setup
	@$(BIN)/python docs/collect_pages.py
	@$(BIN)/zensical build --strict

fix: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

coverage: setup
	@$(BIN)/python -m pytest --cov --cov-report=term-missing

bench-quick: setup
	@$(BIN)/python -m benchmarks run --quick

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# The libraries are in git, so that an installation needs no compiler; a test holds them to their source.
STRATEGY := export/batching/batch_strategy.c
STRATEGY_FLAGS := -std=c11 -D_POSIX_C_SOURCE=200809L -O2 -Wall -Wextra -Werror -fPIC -shared -fvisibility=hidden -s

batch-strategy: export/batching/x86_64/batchstrategy.so export/batching/aarch64/batchstrategy.so

export/batching/%/batchstrategy.so: $(STRATEGY)
	@mkdir -p $(@D)
	$*-linux-gnu-gcc $(STRATEGY_FLAGS) -DSOURCE_SHA256='"$(shell sha256sum $(STRATEGY) | cut -c1-64)"' -o $@ $<
