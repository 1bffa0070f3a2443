# Every target sets itself up: the first run makes .venv, later runs only when the dependencies change.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long style format docs dist

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

install: $(STAMP) ## make .venv with madtp and everything to develop it

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
		{ echo "madtp needs Python 3.11 or newer: no $(PYTHON) found; name one, e.g. make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "madtp needs Python 3.11 or newer: $(PYTHON) is $$($(PYTHON) -V); name another, e.g. make PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP) ## a pruned model at work, in a few minutes
	$(BIN)/madtp demo

test: style ## style, types and the quick tests: CPU, no network
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-long: style ## all tests; those that need a GPU are skipped without one
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m ""

style: $(STAMP) ## formatting, lint and types, changing nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

docs: $(STAMP) ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

dist: $(STAMP) ## a source archive and a wheel, in dist/
	$(BIN)/python -c 'from setuptools import build_meta as build; build.build_sdist("dist"); build.build_wheel("dist")'

format: $(STAMP) ## mend formatting and what lint can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
