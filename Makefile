# `make demo` and `make test` are all that anyone needs; both create .venv first. RUN=folder and SEED=n choose the demo's.
VENV := .venv
RUN ?= runs/demo
SEED ?= 0
# The first interpreter that is Python 3.11 or 3.12.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
PACKAGES := cluster evaluation trainer sampler launch

.PHONY: setup demo test lint types format bench peers drill clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; install one or give make PYTHON=/path/to/python"; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --progress-bar off -c constraints.txt -e '.[dev]'
	@# Type checkers do not follow the editable finder of setuptools: a tree of links does for them.
	@mkdir -p $(VENV)/types/gebm
	@for package in $(PACKAGES); do ln -sfn ../../../$$package $(VENV)/types/gebm/$$package; done
	@touch $@

demo: setup
	$(VENV)/bin/gebm demo --out $(RUN) --seed $(SEED)

test: setup
	$(VENV)/bin/python -m pytest

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: setup
	MYPYPATH=$(CURDIR)/$(VENV)/types $(VENV)/bin/mypy -p gebm

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: setup
	$(VENV)/bin/python -m tests.benchmarks.pipeline

# What benchmarks compare with and does not fit into one environment with what gebm pins.
peers: $(VENV)/peers/blackjax/.ready $(VENV)/peers/two_sample/.ready

$(VENV)/peers/blackjax/.ready: tests/benchmarks/blackjax.txt
	$(PYTHON) -m venv $(VENV)/peers/blackjax
	$(VENV)/peers/blackjax/bin/python -m pip install --quiet --progress-bar off --no-deps -r tests/benchmarks/blackjax.txt
	@touch $@

$(VENV)/peers/two_sample/.ready: tests/benchmarks/two_sample.txt
	$(PYTHON) -m venv $(VENV)/peers/two_sample
	$(VENV)/peers/two_sample/bin/python -m pip install --quiet --progress-bar off -r tests/benchmarks/two_sample.txt
	@touch $@

drill: setup
	$(VENV)/bin/python -m tests.drills.storms
	$(VENV)/bin/python -m tests.drills.preemption
	$(VENV)/bin/python -m tests.drills.farm_storm

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache *.egg-info build
