# Chaperone. `make help` lists the targets.
SHELL := /bin/bash
export CARGO_TERM_COLOR ?= auto

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: generate
generate: ## write the generated files: CRDs, record schema
	cargo run --quiet -p chaperone-crds --bin generate -- .

-include e2e/cluster/cluster.mk
