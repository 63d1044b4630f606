# One virtual environment, `.venv`, in layers: what the toolkit runs with, and on top of it what its tests and its
# benchmarks need. A stamp file is written when a layer is whole, and renewed when pyproject.toml or constraints.txt
# changes. Every target can be interrupted and called again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
OUT ?= study
FILES := landscape analysis figures cli benchmarks tests

# Modules are compiled when they are first imported, which most never are: it halves the time of an installation. So
# bytecode has to be written, whatever the user's shell says.
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
unexport PYTHONDONTWRITEBYTECODE
# Each process begins with half of the tests, in their order, and takes over some of the other's when it has done its
# own: what a module or a session shares is mostly made once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
# An environment of its own: neither the user's path nor the user's site may decide what is imported.
unexport PYTHONPATH
export PYTHONNOUSERSITE := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help study test test-slow test-docs lint format bench clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

study: $(STAMPS)/runtime  ## install what is needed, run the default study, say where its report is
	@$(BIN)/landscape study --out $(OUT)
	@echo "$(abspath $(OUT))/report.html"

test: $(STAMPS)/dev  ## the quick tests
	@$(PYTEST)

test-slow: $(STAMPS)/dev $(STAMPS)/bench  ## the tests that take more than a few seconds
	@$(PYTEST) -m slow

test-docs: $(STAMPS)/dev  ## every example of README.md and docs/
	@$(PYTEST) -m "slow or not slow" tests/test_docs.py

lint: $(STAMPS)/dev  ## ruff and mypy; changes nothing
	@$(BIN)/ruff check $(FILES)
	@$(BIN)/ruff format --check $(FILES)
	@$(BIN)/mypy

format: $(STAMPS)/dev  ## put imports and layout right
	@$(BIN)/ruff check --select I --fix $(FILES)
	@$(BIN)/ruff format $(FILES)

bench: $(STAMPS)/bench  ## measure speed, side by side with peers (NAMES="recording ..." for some)
	@$(BIN)/python -m benchmarks $(NAMES)

clean:  ## remove the environment, caches and builds; studies stay
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `unfinished` lies in the environment from its first moment until its first layer is whole: an environment in which it
# is found, or in which there is no python, is made afresh. Later layers only add to what works already.
$(STAMPS)/runtime: pyproject.toml constraints.txt
	@if [ ! -x $(BIN)/python ] || [ -e $(VENV)/unfinished ]; then \
		echo "making $(VENV) and installing what the toolkit needs (about a minute)" && \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && touch $(VENV)/unfinished && \
		$(BIN)/python -m ensurepip --default-pip >/dev/null; \
	fi
	@$(INSTALL) --editable .
	@mkdir -p $(STAMPS) && rm -f $(VENV)/unfinished && touch $@

$(STAMPS)/dev $(STAMPS)/bench: $(STAMPS)/%: $(STAMPS)/runtime
	@echo "installing the '$*' extra"
	@$(INSTALL) --editable ".[$*]"
	@touch $@
