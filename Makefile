# make report | test | lab | bench | check: each installs what it needs first, once.
.DELETE_ON_ERROR:
.PHONY: install report test test-faults lab bench check clean

PYTHON ?= python3
CORES ?=
DATASET ?=
BIN := .venv/bin
STAMP := .venv/.installed

# The constraints pin every package; the stamp is written last, so a broken install starts again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

install: $(STAMP)

report: $(STAMP)
	$(BIN)/resattn study quick $(if $(DATASET),--dataset $(DATASET)) $(if $(CORES),--cores $(CORES))

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lab: $(STAMP)
	$(BIN)/python -m ipykernel install --prefix .venv --name resattn --display-name 'resattn' >/dev/null
	$(BIN)/jupyter lab --notebook-dir notebooks

bench: $(STAMP)
	$(BIN)/python -m analysis.bench results/bench.json

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

clean:
	rm -rf results/quick results/small results/paper results/bench.json
