# `make run` serves, `make test` tests, `make check` is what CI runs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test soak check lint format format-check docs install install-dev lock pin-base sbom clean

help:
	@echo "make run      set up .venv and serve on http://localhost:5000"
	@echo "make test     set up .venv and run the tests, those of the page where Chromium is"
	@echo "make soak     the long forms of the tests of robustness, node, batch and DICOM objects (hours)"
	@echo "make check    format check, ruff, mypy, import-linter and tests"
	@echo "make docs     build the documents as a site in runs/site"
	@echo "make lock     pin the serving packages with their hashes"
	@echo "make pin-base pin the image's base by its digest (needs docker)"
	@echo "make sbom     list the image's packages in CycloneDX's format"
	@echo "make format   rewrite the sources in the project's format"
	@echo "make clean    remove .venv and caches"

run: install
	$(BIN)/python app.py

test: install-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The long forms, in the background; figures go to runs/reliability.jsonl.
soak: install-dev
	mkdir -p runs
	TEST_SCALE=long TEST_FIGURES=runs/reliability.jsonl $(BIN)/python -m pytest tests/robustness \
		tests/node tests/reporting tests/batch/test_chaos.py tests/batch/test_cut_network.py

check: format-check lint test

format-check: install-dev
	$(BIN)/ruff format --check .

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install-dev
	$(BIN)/python -m tools.site runs/site
	@echo "Open runs/site/index.html"

# One set for Linux on x86-64 and arm64.
lock: install-dev
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		requirements-serve.txt --output-file requirements-serve.lock

pin-base:
	digest=$$(docker buildx imagetools inspect python:3.11-slim --format '{{.Manifest.Digest}}') \
		&& sed -i "s|^ARG BASE=.*|ARG BASE=python:3.11-slim@$$digest|" Dockerfile

sbom: install-dev
	mkdir -p runs
	$(BIN)/cyclonedx-py requirements --output-reproducible --of JSON --output-file runs/sbom.json \
		requirements-serve.lock

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

# A stamp is written only after its step has finished, so an interrupted set-up is taken up again.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "SpineXR needs Python 3.11 or newer; try 'make PYTHON=python3.12 run'." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: requirements.txt constraints.txt $(VENV)/.created
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.installed-browser: requirements-browser.txt $(VENV)/.installed
	$(PIP) -r requirements-browser.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-browser.txt requirements-node.txt requirements-dask.txt requirements-remote.txt $(VENV)/.installed
	$(PIP) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
