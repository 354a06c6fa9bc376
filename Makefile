# make report | test | lab | bench | zoo | site | check: each installs what it needs first, once.
.DELETE_ON_ERROR:
.PHONY: install report test test-browser test-wheel test-faults test-slurm bench-scheduling docs hashes lab bench zoo site check clean

PYTHON ?= python3
CORES ?=
DATASET ?=
BIN := .venv/bin
STAMP := .venv/.installed

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The constraints pin every package, the build backend too: it is installed first, and the project without isolation,
# which would fetch another one. The stamp is written last, so a broken install starts again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation --editable '.[suite,test]'
	@touch $@

install: $(STAMP)

report: $(STAMP)
	$(BIN)/resattn study quick $(if $(DATASET),--dataset $(DATASET)) $(if $(CORES),--cores $(CORES))

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# A person's way through the report and JupyterLab, in headless Chromium (Debian: apt-get install chromium).
test-browser: $(STAMP)
	$(PIP) --no-build-isolation --editable '.[suite,browser,site]'
	$(BIN)/python -m pytest -m browser -s tests/browser

# The wheel, built and installed beside the checkout's own packages.
test-wheel: $(STAMP)
	$(BIN)/python -m pytest -m wheel tests/test_wheel.py

# Everything that can happen to a study, and the table of docs/reliability.md; what needs root is skipped without it.
test-faults: $(STAMP)
	$(BIN)/python -m pytest tests/faults --all-faults --reliability docs/reliability.md --numprocesses 2 --dist worksteal

# Studies through a Slurm that is started here, as root (Debian: apt-get install slurm-wlm munge), else skipped.
test-slurm: $(STAMP)
	$(PIP) --no-build-isolation --editable '.[suite,slurm,kubernetes]'
	$(BIN)/python -m pytest tests/slurm --slurm -rs

# What the scheduling of forty empty notebooks costs, beside their kernels' own time.
bench-scheduling: $(STAMP)
	$(BIN)/python tests/faults/overhead.py

# The pages and drawings of docs/ that are made from the code.
docs: $(STAMP)
	$(BIN)/python -m analysis.docs docs

# requirements-hashes.txt, from the constraints: see there.
hashes: $(STAMP)
	$(PIP) uv
	$(BIN)/uv pip compile --no-deps --generate-hashes --no-header --no-annotate --no-emit-package torch constraints.txt --output-file requirements-hashes.txt

lab: $(STAMP)
	$(BIN)/jupyter lab --config notebooks/jupyter_server_config.py --notebook-dir notebooks --ServerApp.ip=127.0.0.1 --ServerApp.allow_remote_access=False

bench: $(STAMP)
	$(BIN)/python -m benchmarks results/bench.json

# Every public model of the libraries of models; it resumes. ARGS: families, or options (--help).
zoo: $(STAMP)
	$(PIP) --no-build-isolation --editable '.[suite,zoo]'
	$(BIN)/python -m analysis.zoo $(ARGS)

# The documentation site, from docs/, code and results: site/index.html opens from disk.
site: $(STAMP)
	$(PIP) --no-build-isolation --editable '.[suite,site]'
	$(BIN)/python -m mkdocs build --quiet

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

clean:
	rm -rf results/quick results/small results/paper
