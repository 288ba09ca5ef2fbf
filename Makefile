# Phosphene. `make demo` shows it, `make test` checks it.
#
# PYTHON=python3.12    which Python makes .venv (3.11 to 3.13; the first found by default)
# TORCH=cpu|cuda       which PyTorch (by default cuda where there is an NVIDIA GPU)
# ARGS="..."           handed on to phosphene, pytest or the benchmarks

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
TORCH ?= auto
ARGS ?=

# A virtual environment knows its own place and its Python's: when the checkout was moved
# or that Python is gone, its stamps say nothing.
STALE := $(shell test -x $(BIN)/python && grep -qsF '$(CURDIR)/$(BIN)/python' $(BIN)/pip || echo stale)

NPM := $(shell command -v npm 2>/dev/null)

.DEFAULT_GOAL := help
# Two setups of one environment would be in each other's way.
.NOTPARALLEL:
.PHONY: help setup demo test bench bench-gpu lint clean stale

help:
	@echo 'make demo    set up everything and show the simulated subject'\''s pictures in a browser'
	@echo 'make test    set up what tests need and run them all'
	@echo 'make setup   only set up: .venv with the command .venv/bin/phosphene'
	@echo 'make bench   measure speed on this machine; tables in runs/bench'
	@echo 'make bench-gpu  the same of Stable Diffusion 1.5 on its GPU, with random weights'
	@echo 'make lint    ruff, mypy --strict, and tsc on the pages'
	@echo 'make clean   remove .venv, node_modules and caches'

stale: ;

setup: $(VENV)/.ready-run
	@echo 'Ready: $(BIN)/phosphene'

$(VENV)/.ready-%: pyproject.toml constraints.txt scripts/setup.sh $(STALE)
	@PYTHON='$(PYTHON)' TORCH='$(TORCH)' sh scripts/setup.sh $*

# exec: a signal to make's child is a signal to phosphene, and Ctrl-C ends it all quietly.
demo: $(VENV)/.ready-run
	@exec $(BIN)/phosphene demo $(ARGS)

# One thread each: tests start several processes, and two pools on two cores only wait.
test bench: export OMP_NUM_THREADS = 1
test bench: export OPENBLAS_NUM_THREADS = 1
# Nothing is fetched from a model hub, and nothing asks for a screen.
test bench: export HF_HUB_OFFLINE = 1
test bench: export MPLBACKEND = Agg

test: $(VENV)/.ready-test
	@sh scripts/browser.sh
	@exec $(BIN)/python -m pytest $(ARGS)

bench: $(VENV)/.ready-test
	@sh scripts/browser.sh
	@exec $(BIN)/python -m benchmarks $(ARGS)

bench-gpu: $(VENV)/.ready-run
	@exec $(BIN)/python -m benchmarks.gpu $(ARGS)

lint: $(VENV)/.ready-lint $(if $(NPM),node_modules/.package-lock.json)
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(if $(NPM),npm run --silent types && echo 'tsc: the pages are well typed', \
	    echo 'Node is not installed: the types of the pages in web/ are not checked.')

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

clean:
	rm -rf $(VENV) node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
