# Every target bootstraps itself: on a machine with nothing, `make up` is the first thing to type.
.DEFAULT_GOAL := help
SLIPWAY := .venv/bin/slipway

.PHONY: help up down doctor status check test bench clean lock
help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: env
env:
	@toolchain/bootstrap $(FOR)

up: FOR := up
up: export SLIPWAY_BEGUN := $(shell date +%s)
up: env ## the whole platform, from nothing, until a model answers
	@$(SLIPWAY) up

down: env ## stop everything and leave nothing running (ERASE=1: data too)
	@$(SLIPWAY) down $(if $(ERASE),--erase)

doctor: env ## what this machine lacks, what will be installed, how long it takes
	@$(SLIPWAY) doctor

status: env ## what runs, where, and what truly answers
	@$(SLIPWAY) status

check: env ## lint, types, unit and manifest tests: minutes, no cluster
	@tests/check

test: check ## check, then every flow on the embedded cluster, through the front door
	@.venv/bin/pytest tests/e2e

bench: env ## speed and memory beside their targets, as JSON too
	@$(SLIPWAY) bench

clean: env ## free what can be rebuilt
	@$(SLIPWAY) clean

lock: env ## resolve the Python requirements anew
	@PATH=.venv/bin:$$PATH requirements/lock
