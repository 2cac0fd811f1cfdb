# Bare `make` lists the targets. Everything a target needs it installs itself: the Python environment in .venv from the
# locked requirements, test servers from Debian's packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
JS := tests/mqtt/javascript
SERVERS := mosquitto mosquitto-clients victoria-metrics openssl strace systemd paho.mqtt.c-examples
# Debian puts brokers where only root looks.
export PATH := $(PATH):/usr/sbin:/sbin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -n)

.DEFAULT_GOAL := help
.PHONY: help demo run test check lint types contracts unit reliability reliability-sessions fuzz differential mutants models bench bench-listener bench-broker bench-log bench-rules lock servers clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

demo: $(VENV)/.installed  ## the whole gateway on this machine, no set-up: make demo ARGS="--for 30s"
	@$(BIN)/gateway demo $(ARGS)

run: $(VENV)/.installed  ## the gateway with config/gateway.yaml
	@$(BIN)/gateway run -c config/gateway.yaml

test: $(VENV)/.installed-dev servers check unit  ## install what the tests need, check the style and the types, run everything

check: lint types contracts  ## style, types and the layering

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

contracts: $(VENV)/.installed-dev
	$(BIN)/lint-imports

unit: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(ARGS)

reliability: $(VENV)/.installed-dev servers  ## every storage fault at full count; writes the table of RELIABILITY.md (hours; needs root)
	rm -rf .reliability && mkdir .reliability
	RELIABILITY=full RELIABILITY_FIGURES=.reliability CI=true $(BIN)/python -m pytest tests/crash --timeout 14400 $(ARGS)
	$(BIN)/python -m tests.crash.report .reliability

reliability-sessions: $(VENV)/.installed-dev servers  ## the part of it that is about MQTT clients (half an hour; needs root)
	rm -rf .reliability && mkdir .reliability
	RELIABILITY=full RELIABILITY_FIGURES=.reliability CI=true $(BIN)/python -m pytest -k exchanges tests/crash --timeout 14400 $(ARGS)
	$(BIN)/python -m tests.crash.report .reliability M

fuzz: $(VENV)/.installed-dev  ## a million bent packets at the listener: no crash, no hang, no memory kept (minutes)
	FUZZ_PACKETS=$${FUZZ_PACKETS:-1000000} $(BIN)/python -m pytest tests/mqtt/test_fuzz.py -q -s -p no:cacheprovider

differential: $(VENV)/.installed-dev servers  ## the same packets to the listener and to mosquitto, 10,000 random conversations (minutes)
	$(BIN)/python -m tests.mqtt.differential $(ARGS)

mutants: $(VENV)/.installed-dev servers  ## plant bugs in a copy of the source, one by one; each must make the tests fail
	$(BIN)/python -m tests.mutants $(ARGS)

models: $(VENV)/.installed-dev  ## rules and thermostats against independent models, a million sequences (an hour; MODEL_SEQUENCES=N for fewer)
	MODEL_SEQUENCES=$${MODEL_SEQUENCES:-1000000} $(BIN)/python -m pytest tests/rules -k against --timeout 14400 -s $(ARGS)

bench-rules: $(VENV)/.installed-bench  ## rules by themselves, beside a function by hand and common-expression-language
	$(BIN)/python -m benches.rules $(ARGS)

bench: $(VENV)/.installed-dev servers  ## end to end: durable events a second and CPU by stage, beside mosquitto
	$(BIN)/python -m benches.end_to_end $(ARGS)

bench-listener: $(VENV)/.installed-dev servers  ## the listener under a fleet, a flood, idlers, a lone device; BENCH_DIR=folder, ARGS="flood lone"
	$(BIN)/python -m benches.listener --folder $${BENCH_DIR:-.} $(ARGS)

bench-broker: $(VENV)/.installed-dev servers  ## receiving from a broker, beside C subscribers and paho-mqtt; ARGS="--streams qos1"
	$(BIN)/python -m benches.broker_client $(ARGS)

bench-log: $(VENV)/.installed-bench  ## the log by itself, beside SQLite, LMDB, persist-queue and the raw limit
	$(BIN)/python -m benches.log $(ARGS)

lock: $(VENV)/.installed-dev  ## resolve the requirements with hashes, keeping what is locked; ARGS=--upgrade takes the newest
	$(BIN)/pip install --quiet 'uv>=0.5,<1'
	$(BIN)/uv pip compile --quiet pyproject.toml --group build --universal --python-version 3.11 --generate-hashes $(ARGS) \
	  --no-annotate --no-header -o requirements.lock
	$(BIN)/uv pip compile --quiet pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes $(ARGS) \
	  --no-annotate --no-header -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet pyproject.toml --group bench -c requirements-dev.lock --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header -o requirements-bench.lock

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; PYTHON=... names another"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -q -y python3-venv; } \
	  || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing the gateway into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing the gateway and its tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: requirements-bench.lock | $(VENV)/.installed-dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

servers:
	@missing=""; for each in mosquitto mosquitto_pub victoria-metrics openssl strace systemd-analyze paho_c_pub; do \
	  command -v $$each >/dev/null || missing="$$missing $$each"; done; \
	if [ -n "$$missing" ]; then \
	  { $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(SERVERS); } \
	  || { echo "the tests need$$missing: apt-get install $(SERVERS)"; exit 1; }; fi
	@command -v npm >/dev/null || $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends nodejs npm
	@$(MAKE) --no-print-directory $(JS)/node_modules/.installed

$(JS)/node_modules/.installed: $(JS)/package-lock.json
	@cd $(JS) && npm ci --silent --no-audit --no-fund
	@touch $@
