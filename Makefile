# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv first, from pinned and hashed packages.
# `make lock` renews the pins; `make lint`, `make types`, `make unit` are the parts of `make test`.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

LOCK   := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

.PHONY: demo test lint types unit coverage chaos docs setup setup-dev lock image clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

# Three processes on two processors: two of them mostly wait, one for Docker and one for Kubernetes.
unit: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadscope --cov --cov-report=

# Which lines and branches of the kernel the last `make unit` did not reach.
coverage: $(VENV)/.dev
	$(BIN)/coverage report --show-missing

# Half an hour of faults on each engine that is there (docs/reliability.md). SHOAL_CHAOS_SEED takes up a run's seed.
chaos: $(VENV)/.dev
	SHOAL_CHAOS_SECONDS=$${SHOAL_CHAOS_SECONDS:-1800} $(BIN)/python -m pytest -s tests/chaos

# The plugin reference, from signatures and docstrings; a test compares.
docs: $(VENV)/.dev
	$(BIN)/python -m tests.docs.reference

setup: $(VENV)/.run
setup-dev: $(VENV)/.dev

# What `shoal serve` needs, and shoal itself from this checkout.
$(VENV)/.run: constraints-run.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "shoal needs Python 3.11 or later; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) ..."
	@$(PIP) install --require-hashes -r constraints-run.txt
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

# The SDK of OpenSandbox, which the demo uses.
$(VENV)/.demo: $(VENV)/.run constraints-demo.txt
	@echo "setting up the SDK ..."
	@$(PIP) install --require-hashes -r constraints-demo.txt
	@touch $@

# What the tests, the linters and the type checker need besides.
$(VENV)/.dev: $(VENV)/.run constraints.txt
	@echo "setting up the development tools ..."
	@$(PIP) install --require-hashes -r constraints.txt
	@touch $@

lock:
	$(LOCK) --all-extras --group dev --group build pyproject.toml -o constraints.txt
	$(LOCK) --group build --constraint constraints.txt pyproject.toml -o constraints-run.txt
	$(LOCK) --group demo --constraint constraints.txt -o constraints-demo.txt
	$(LOCK) --all-extras --group build --constraint constraints.txt pyproject.toml -o constraints-image.txt

# The server as a container image, for deploy/.
image:
	docker build -f deploy/Containerfile -t shoal:latest .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage dist build
