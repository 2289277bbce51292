# Two commands do all the set-up on a fresh machine: `make run` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
RUN_ARGS ?= --preset demo
TEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
BIN    := $(VENV)/bin

.PHONY: install run test test-fast test-oldest lint docs bench clean

install: $(VENV)/.compiled ## everything a run or a notebook needs

run: $(VENV)/.compiled ## the main job: bars to report
	$(BIN)/ploutos run $(RUN_ARGS)

test: $(VENV)/.compiled $(VENV)/.installed-test ## the whole suite, slow tests too, by two processes
	$(BIN)/python -m pytest $(TEST_ARGS)

test-fast: $(VENV)/.installed-test ## without the slow tests
	$(BIN)/python -m pytest $(TEST_ARGS) -m "not slow"

test-oldest: $(VENV)-oldest/.installed ## the same, on the oldest versions that pyproject.toml allows, in an environment of its own
	$(VENV)-oldest/bin/python -m pytest $(TEST_ARGS) -m "not slow" -W default  # new libraries warn of what old ones call

lint: $(VENV)/.installed-test ## style, types, and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.installed-docs ## the site, into build/site; the network is not asked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.installed-test ## speed and memory, as ratios, against the peers of the bench extra
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.environment
	$(BIN)/python -m benchmarks.dataset
	$(BIN)/python -m benchmarks.parsing
	$(BIN)/python -m benchmarks.bars
	$(BIN)/python -m benchmarks.processes
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.backtests
	$(BIN)/python -m benchmarks.variants
	$(BIN)/python -m benchmarks.fusion
	$(BIN)/python -m benchmarks.features
	$(BIN)/python -m benchmarks.planted

clean: ## forget the environment; runs and the store stay
	rm -rf $(VENV) $(VENV)-oldest

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "found $$($(PYTHON) --version); ploutos needs Python 3.11 or later: make PYTHON=/path/to/python3.11 run"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.compiled: $(VENV)/.installed
	@echo "compiling, once: about fifty seconds"
	@$(BIN)/python -c "from ploutos.training.fast.fused import compile_ahead; compile_ahead()" & network=$$!; \
	$(BIN)/python examples/01_first_policy.py $(VENV) > /dev/null && wait $$network
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

$(VENV)-oldest/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[test]'
	touch $@
