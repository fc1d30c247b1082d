# make demo | test | check | bench | fmt; the first use makes .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := ckpt_engine activities workflows worker.py examples tests benchmarks

.PHONY: help demo test soak check bench fmt setup server
.DEFAULT_GOAL := help

help:
	@echo "make demo   see an agent rewound and branched while it runs"
	@echo "make test   checks and every test, on a real Temporal server"
	@echo "make soak   a thousand workers killed at random, a few minutes"
	@echo "make check  format, lint, types"
	@echo "make bench  measurements"
	@echo "make fmt    format the code"

demo: setup
	@$(BIN)/ckpt demo

test: check server
	$(BIN)/python -m pytest

soak: server
	SOAK_KILLS=1000 $(BIN)/python -m pytest -s tests/acceptance/test_soak.py

check: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]' -c constraints.txt < /dev/null
	$(BIN)/python -m benchmarks

fmt: setup
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

# Found or obtained before the tests begin, with its progress in sight; kept in the user's cache.
server: setup
	@$(BIN)/ckpt server --locate > /dev/null

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing (about a minute, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]' -c constraints.txt < /dev/null
	@touch $(STAMP)
