# Each target sets up what it needs: on a fresh clone `make bench STRATEGY=last_block` and `make test` just work.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRACKERS := .venv-trackers

.PHONY: help setup bench plan data report gate gate-update test test-all test-trackers test-gpu perf perf-gpu mini lint

help:
	@echo "make setup                      create .venv and install the pinned dependencies"
	@echo "make bench STRATEGY=last_block  fine-tune, measure, print a table, write results/"
	@echo "                                STRATEGY=all, a comma list, or a path to a .py file; all variables: docs/variables.md"
	@echo "make plan STRATEGY=all          what runs will take in time and memory, and whether they fit, before any is done"
	@echo "make data DATA=reviews.csv      what is in a data set, before any run; JSON=1: as JSON"
	@echo "make report                     tables, plots and a page (results/report.html) of the runs in results/"
	@echo "make test                       the tests that must be green everywhere (make test-all: the long ones too)"
	@echo "make test-trackers              the tests of all trackers, whose libraries get an environment of their own"
	@echo "make gate                       fail on a real regression against results/reference/gate (under 5 minutes)"
	@echo "                                make gate-update REASON=\"why\" writes a new reference"
	@echo "                                CONFIG=my.yaml REFERENCE=folder with both: of a suite of your own"
	@echo "make perf                       speed against the plain path and the Hugging Face Trainer, side by side"
	@echo "make test-gpu                   what only a GPU can show (under 3 minutes); PYTHON=python3: with an installed Python"
	@echo "make perf-gpu                   speed on a GPU, beside the plain path and the Trainer (under 4 minutes); PYTHON too"
	@echo "make mini                       pretrain the embedded mini model again (about 10 minutes on one core)"
	@echo "make lint                       style, types and layers"

setup: $(VENV)/.ready

# Without build isolation: DeepSpeed's build needs the torch that is pinned here.
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; some minutes, most of it the download of PyTorch)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools wheel torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation \
		--editable ".[dev,deepspeed,hf,data]"
	@touch $@

# VARIABLE=value becomes --option value; what is not given is not passed.
option = $(if $($(1)),--$(2) "$($(1))")
flag = $(if $($(1)),--$(2))
include options.mk

bench: setup
	@$(BIN)/ftbench run $(BENCH_OPTIONS)

plan: setup
	@$(BIN)/ftbench plan $(PLAN_OPTIONS)

data: setup
	@$(BIN)/ftbench data "$(or $(DATA),auto)" $(if $(JSON),--json) $(DATA_OPTIONS)

report: setup
	@$(BIN)/ftbench report $(REPORT_OPTIONS)

# Two workers, one thread each; `tests/conftest.py` says which tests stay together. `pytest` alone does one test after
# another. Bytecode is kept, whatever the environment says: every process would compile it again.
test: setup
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n 2 --no-loadscope-reorder -p no:benchmark

test-all: setup
	@$(BIN)/python -m pytest -m ""

test-trackers: $(TRACKERS)/.ready
	@$(TRACKERS)/bin/python -m pytest tests/tracking -m "" -p no:benchmark

# All libraries of trackers, which `make setup` leaves out: Trackio needs an older Pillow than the one that is pinned.
$(TRACKERS)/.ready: pyproject.toml constraints.txt
	@echo "Setting up $(TRACKERS) (once; some minutes, most of it the download of PyTorch)"
	@$(PYTHON) -m venv $(TRACKERS)
	@grep -v "^pillow==" constraints.txt > $(TRACKERS)/constraints.txt
	@$(TRACKERS)/bin/python -m pip install --quiet --disable-pip-version-check -c $(TRACKERS)/constraints.txt \
		--editable ".[dev,track]"
	@touch $@

gate: setup
	@$(BIN)/ftbench gate $(GATE_OPTIONS)

gate-update: setup
	@$(BIN)/ftbench gate --update "$(REASON)" $(call flag,COSTS,costs) $(GATE_OPTIONS)

# Ratios measured side by side; FULL=1: the full data set and all strategies (hours).
perf: setup
	@mkdir -p $(or $(RESULTS),results)
	@FTBENCH_PERF_FULL=$(FULL) $(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-quiet \
		--benchmark-json=$(or $(RESULTS),results)/perf.json
	@$(BIN)/python -m benchmarks.report $(or $(RESULTS),results)/perf.json
	@$(BIN)/python -m benchmarks.prediction --results $(or $(RESULTS),results) $(if $(FULL),,--only mini)

# On a GPU: with the Python that PYTHON= names, as it is installed there, else with the virtual environment's.
GPU_SETUP := $(if $(filter file,$(origin PYTHON)),setup)
GPU_PYTHON = PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(if $(GPU_SETUP),$(BIN)/python,$(PYTHON))

test-gpu: $(GPU_SETUP)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(GPU_PYTHON) -m pytest tests/gpu -m gpu -vv -rs -p no:benchmark

perf-gpu: $(GPU_SETUP)
	@$(GPU_PYTHON) -m benchmarks.gpu --results $(or $(RESULTS),results) $(if $(MODEL),--model $(MODEL))

# Its file is committed; this writes it again.
mini: setup
	@$(BIN)/python tools/pretrain_mini.py

# Style, types, and that no import runs upward (the layers stand in pyproject.toml).
lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports
