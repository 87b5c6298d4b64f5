VENV := .venv
READY := $(VENV)/.ready
PYTHON ?= python3

.PHONY: setup quickstart test test-all lint

# Set up: a virtual environment with pinned versions, made anew when the pins change.
setup: $(READY)

$(READY): pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(READY)

# From raw text to a model that answers, in minutes.
quickstart: setup
	$(VENV)/bin/keylm run recipes/quickstart.yaml

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: lint
	$(VENV)/bin/python -m pytest -m "not slow"

test-all: lint
	HYPOTHESIS_PROFILE=exploring $(VENV)/bin/python -m pytest
