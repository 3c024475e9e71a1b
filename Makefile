# What a person types. Each target sets up what it needs; on a fresh clone `make bench STRATEGY=last_block` and
# `make test` are all.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup bench report gate gate-update test test-all perf mini lint

help:
	@echo "make setup                      create .venv and install what is pinned"
	@echo "make bench STRATEGY=last_block  fine-tune, measure, print a table, write results/"
	@echo "                                STRATEGY=all, a comma list, or a path to a .py file; more in the README"
	@echo "make report                     tables, plots and a page (results/report.html) of what is in results/"
	@echo "make test                       the tests that must be green everywhere (make test-all: the long ones too)"
	@echo "make gate                       fail on a real regression against results/reference/gate (under 5 minutes)"
	@echo "                                make gate-update REASON=\"why\" writes a new reference"
	@echo "make perf                       speed against the plain path and the Hugging Face Trainer, side by side"
	@echo "make mini                       pretrain the embedded mini model again (about 10 minutes on one core)"
	@echo "make lint                       ruff"

setup: $(VENV)/.ready

# Without build isolation: DeepSpeed's build looks for the torch that is pinned here.
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; some minutes, most of it the download of PyTorch)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools wheel torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation \
		--editable ".[dev,deepspeed,hf]"
	@touch $@

# VARIABLE=value becomes --option value; what is not given is not passed.
option = $(if $($(1)),--$(2) "$($(1))")

bench: setup
	@$(BIN)/ftbench run \
		$(call option,STRATEGY,strategy) $(call option,MODEL,model) $(call option,WEIGHTS,weights) \
		$(call option,DATA,data) $(call option,READOUT,readout) $(call option,ENGINE,engine) $(call option,ZERO,zero) \
		$(call option,NPROC,nproc) $(call option,NNODES,nnodes) $(call option,NODE_RANK,node-rank) \
		$(call option,RDZV,rdzv) $(call option,HOSTFILE,hostfile) $(call option,SEEDS,seeds) \
		$(call option,REFERENCE,reference) $(call option,TUNE,tune) $(call option,EPOCHS,epochs) \
		$(call option,PRECISION,precision) \
		$(call option,CONFIG,config) $(call option,SET,set) \
		$(call option,RESULTS,results) $(call option,CACHE,cache) \
		$(if $(FORCE),--force) $(if $(SAVE),--save) $(if $(QUIET),--quiet)

report: setup
	@$(BIN)/ftbench report $(call option,RESULTS,results) $(call option,REFERENCE,reference) $(call option,CACHE,cache)

# Two workers; `tests/conftest.py` says which tests stay together. `pytest` alone does one test after another.
test: setup
	@$(BIN)/python -m pytest -n 2 --no-loadscope-reorder -p no:benchmark

test-all: setup
	@$(BIN)/python -m pytest -m ""

gate: setup
	@$(BIN)/ftbench gate $(call option,RESULTS,results)

gate-update: setup
	@$(BIN)/ftbench gate --update "$(REASON)" $(call option,RESULTS,results)

# Ratios measured side by side; FULL=1 takes the whole data set and all strategies (hours).
perf: setup
	@mkdir -p $(or $(RESULTS),results)
	@FTBENCH_PERF_FULL=$(FULL) $(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-quiet \
		--benchmark-json=$(or $(RESULTS),results)/perf.json
	@$(BIN)/python -m benchmarks.report $(or $(RESULTS),results)/perf.json

# The file is in the repo; this makes it anew.
mini: setup
	@$(BIN)/python tools/pretrain_mini.py

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
