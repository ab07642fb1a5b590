# `make help` says what there is. Nothing needs to be done before: each target makes what it needs, once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := $(VENV)/peers
FLOWER := $(VENV)/flower
RUN := $(VENV)/.manybody
DEV := $(VENV)/.manybody-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

export MPLBACKEND := svg

.PHONY: help
help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: $(RUN) ## the equation of state of the Lennard-Jones liquid, to a report with a certificate (minutes)
	@$(BIN)/manybody run studies/lennard-jones-liquid --out runs/demo
	@echo "The report: $(CURDIR)/runs/demo/report.html"

.PHONY: test
test: $(DEV) browser server flower ## every test, or make test TESTS=tests/numerics
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(TESTS)

.PHONY: lint
lint: $(DEV) ## style, types, layers, and the change notes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@bash changes/check

.PHONY: docs
docs: $(DEV) ## the documentation as pages, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation: $(CURDIR)/site/index.html"

.PHONY: bench
bench: $(DEV) $(PEERS)/.ready ## one benchmark beside its peers, or the list of them: make bench NAME=..
	@MANYBODY_PEERS=$(PEERS) $(BIN)/python -m benchmarks $(or $(NAME),--list)

# The peers have an environment of their own: their dependencies are not ours.
$(PEERS)/.ready: benchmarks/peers.txt
	@echo "Installing the peers of the benchmarks into $(PEERS) (once)"
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet -r benchmarks/peers.txt
	@touch $@

# Flower wants older versions of some of what we use. They lie before ours in an environment that is ours otherwise.
FLWR := $(shell sed -n 's/^flower = \["\(.*\)"\]$$/\1/p' pyproject.toml)
SITE := -c 'import site; print(site.getsitepackages()[0])'
.PHONY: flower
flower: $(FLOWER)/.$(subst ==,-,$(FLWR)) ## an environment with Flower, to test the bridge
$(FLOWER)/.$(subst ==,-,$(FLWR)): | $(DEV)
	@echo "Installing Flower into $(FLOWER) for the tests of the bridge (once)"
	@$(PYTHON) -m venv --clear $(FLOWER)
	@echo "import site; site.addsitedir('$$($(BIN)/python $(SITE))')" > "$$($(FLOWER)/bin/python $(SITE))/ours.pth"
	@$(FLOWER)/bin/python -m pip --disable-pip-version-check install --quiet '$(FLWR)' > $(FLOWER)/pip.log 2>&1 \
	  || { cat $(FLOWER)/pip.log; exit 1; }
	@touch $@

.PHONY: constraints
constraints: $(DEV) ## write down the versions that are installed now
	@{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed -E '/ @ /d; s/\+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt

.PHONY: clean
clean: ## remove what was built, but no results
	@rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV)

# A stamp is as new as the last installation, so a second call installs nothing.
$(RUN): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Manybody into $(VENV) (once; PyTorch is large)"
	@$(PIP) --editable .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Manybody and the tools of its tests into $(VENV) (once; PyTorch is large)"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(RUN)

# The report and the documentation are looked at in a real browser; without one, those tests say so and skip.
.PHONY: browser
browser:
	@if command -v chromium chromium-browser google-chrome > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "Installing Chromium for the browser tests (once)"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium fonts-dejavu-core; } \
	    > /dev/null 2>&1 || echo "Chromium could not be installed: the browser tests skip"; \
	else echo "No Chromium here: the browser tests skip. Install the package chromium to have them."; fi

# The ledger is tested on a real PostgreSQL too; without one, those tests say so and skip.
.PHONY: server
server:
	@if command -v pg_ctl > /dev/null || ls /usr/lib/postgresql/*/bin/pg_ctl > /dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "Installing PostgreSQL for the tests of the ledger (once)"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends postgresql; } \
	    > /dev/null 2>&1 || echo "PostgreSQL could not be installed: its tests skip"; \
	else echo "No PostgreSQL here: its tests skip. Install the package postgresql to have them."; fi
