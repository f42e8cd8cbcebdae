# Everything runs in .venv, made here from Python 3.11 or newer; nothing else is needed.
# make PYTHON=/path/to/python3.12 ... chooses another interpreter (for a new .venv).

SHELL := /bin/bash
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help

NEWER := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c '$(NEWER)' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
# Settings of the caller's own environment must not reach into ours.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PIP_TARGET PIP_PREFIX PIP_USER
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test check format bench faults clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

demo: .venv/.with-plot  ## segment two photographs out of core on a local cluster
	$(BIN)/python -m dask_em demo --overwrite

test: .venv/.with-test  ## run the tests (ARGS="-k store" chooses)
	$(BIN)/python -m pytest $(ARGS)

QUICK := tests/test_architecture.py tests/test_docstrings.py

check: .venv/.with-dev .venv/.with-test  ## lint, formatting, types, imports and the examples in docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q $(QUICK)

format: .venv/.with-dev  ## rewrite the code as `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.with-bench  ## run every benchmark, print Markdown
	@$(BIN)/python tests/benchmarks/run $(ARGS)

faults: .venv/.with-test  ## run the long campaigns of faults
	$(BIN)/python -m pytest --numprocesses=0 -m faults -o faulthandler_timeout=3600 $(ARGS)

clean:  ## remove the environment, builds and caches
	rm -rf .venv build dist demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis dask-worker-space dask-scratch-space
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each extra; all of them fall with the environment when pyproject.toml or constraints.txt change.
.venv/.with-%: .venv/.made
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	@touch $@

.venv/.made: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found: install it, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c '$(NEWER)' || { echo "$(PYTHON) is not Python 3.11 or newer: say make PYTHON=/path/to/another" >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear .venv || { echo "no virtual environment could be made (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@
