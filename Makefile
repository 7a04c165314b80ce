# One entry for people and CI. Needs python3 >= 3.11 and a package registry for the first `make`; nothing else.
# `make` alone says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell python3.11 -c "import sys; print(sys.executable)" 2>/dev/null || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
# auto_LiRPA declares torch<1.13 and is installed without its declared dependencies; the `prover` extra has what it imports.
AUTO_LIRPA := auto_LiRPA==0.3
# Marabou, a second opinion in tests/certify/test_differential.py: its compiled core needs numpy alone, but it declares
# (for tests) versions that this project is past, and has no wheel for every Python; without it those tests are skipped.
MARABOU := maraboupy==2.0.0
DATA ?= ../shared/data
# The one command for tests: `make test` and `make check` run the same.
PYTEST := $(BIN)/python -m pytest

.PHONY: help install demo test test-full check lint types layers format coverage bench docs examples patches pythons dist zipapp size completions vectors mutate fuzz clean

help: ## this list
	@printf 'prune-verify: every target installs what it needs into $(VENV) first\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

install: $(STAMP) ## make .venv with the checker, the prover and the tools (only when something changed)

$(STAMP): pyproject.toml constraints.txt prune_verify/__init__.py
	@echo 'install: $(VENV) with $(PYTHON); a few minutes the first time (PyTorch is large)'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prune-verify needs Python 3.11 or newer; set PYTHON=")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo 'install: the packages of pyproject.toml [prover,test], at the versions of constraints.txt'
	@$(PIP) install -c constraints.txt -e '.[prover,test]'
	@echo 'install: $(AUTO_LIRPA), without its declared dependencies'
	@$(PIP) install --no-deps '$(AUTO_LIRPA)'
	@$(PIP) install --no-deps '$(MARABOU)' || echo 'install: no $(MARABOU) here; the tests that ask it are skipped'
	@touch $@
	@echo 'install: done'

demo: $(STAMP) ## the whole chain on a small data set, in about a minute; files and an HTML report in demo-out/
	$(BIN)/prune-verify demo --out demo-out

test: $(STAMP) ## the fast tests, README commands and notebooks among them
	$(PYTEST)

test-full: $(STAMP) ## every test: full-size data and fresh environments too (needs a package registry)
	$(PYTEST) -m ""

check: $(STAMP) lint types layers ## what CI runs: lint, types, import layers, then the tests of `make test`
	$(PYTEST)

lint: $(STAMP) ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

layers: $(STAMP) ## import-linter: imports go one way
	$(BIN)/lint-imports

format: $(STAMP) ## rewrite: ruff's safe fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(STAMP) ## the fast tests with branch coverage of the checker
	$(PYTEST) --cov=prune_verify/checker --cov-branch --cov-report=term-missing:skip-covered

bench: $(STAMP) ## how the chain scales, on full-size data: DATA=$(DATA)
	$(BIN)/prune-verify bench chain --data $(DATA)

docs: $(STAMP) ## the documentation site in site/, without a warning and without the network
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

examples: $(STAMP) ## make certs/examples, certs/policies and patches anew (new keys, new digests)
	PYTHONPATH=. $(BIN)/python certs/make_policies.py
	PYTHONPATH=. $(BIN)/python certs/make_examples.py
	PYTHONPATH=. $(BIN)/python certs/make_patches.py

patches: $(STAMP) ## make the reference patches of patches/ anew, for the first example as it is
	PYTHONPATH=. $(BIN)/python certs/make_patches.py

PYTHONS ?=
pythons: $(STAMP) ## the checker's tests on other Pythons: PYTHONS="python3.12 python3.13", or those on the PATH
	PRUNE_VERIFY_PYTHONS="$(PYTHONS)" $(PYTEST) -m slow tests/test_pythons.py

dist: $(STAMP) ## wheel and sdist of the last commit in dist/, the same bytes wherever they are made; prints sha256
	$(BIN)/python .ci/dist.py dist

zipapp: $(STAMP) ## the checker of the last commit as one file, dist/prune-verify-checker.pyz; prints sha256
	$(BIN)/python .ci/dist.py zipapp

size: $(STAMP) ## packages and megabytes of a base install (needs a package registry)
	$(BIN)/python .ci/dist.py size

completions: $(STAMP) ## make the scripts of `prune-verify completion` anew, after a change of verbs or options
	PYTHONPATH=. $(BIN)/python .ci/completions.py

vectors: $(STAMP) ## make certs/vectors and certs/conformance anew: the same bytes, unless what they say has changed
	PYTHONPATH=. $(BIN)/python certs/make_vectors.py
	PYTHONPATH=. $(BIN)/python certs/make_conformance.py

mutate: $(STAMP) ## change what decides a proof, one operator at a time, and see whether a test notices (an hour or two)
	PYTHONPATH=. $(BIN)/python tests/mutate.py

FUZZ_SECONDS ?= 600
fuzz: $(STAMP) ## random networks, documents and proofs, FUZZ_SECONDS=$(FUZZ_SECONDS) each; installs atheris if it can
	$(PIP) install atheris || echo 'fuzz: atheris cannot be installed here; the built-in engine serves instead'
	for target in network documents proof; do \
	  PYTHONPATH=. $(BIN)/python tests/fuzz/fuzz_checker.py $$target -max_total_time=$(FUZZ_SECONDS) \
	    $$($(BIN)/python -c 'import atheris' 2>/dev/null || echo --engine builtin) || exit 1; done

clean: ## remove what the targets wrote, but not .venv
	rm -rf demo-out bench-out site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
