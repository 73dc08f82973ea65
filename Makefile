# Chaperone. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Where test programs, images and cluster binaries are kept between runs.
export CHAPERONE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/chaperone

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## install what building and testing need (Debian or Ubuntu, root)
	@./hack/setup

.PHONY: demo
demo: setup ## bring up a real cluster and show Chaperone around a real agent
	@./e2e/demo

.PHONY: test
test: setup lint ## everything: lints, unit, integration, the proof in a real cluster
	@# What the cluster runs is built beside the tests, and is there when its turn comes.
	@# (Not $$(MAKE), which make -n would run.)
	@./hack/ahead make --no-print-directory unit charts run-proof
	@$(MAKE) --no-print-directory e2e

.PHONY: lint
lint: ## format, clippy, generated files, documents
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@./hack/check-generated
	@./hack/check-docs

.PHONY: unit
unit: ## unit tests, and integration tests in network namespaces (root)
	@# Six at a time: most of the long ones wait for timers and servers, not for a processor.
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-6} cargo test --workspace --locked

.PHONY: fuzz
fuzz: ## look for bytes that break a parser: each target for FUZZ_SECONDS (60)
	@./hack/fuzz

.PHONY: faults
faults: ## the fault campaign on the evidence path, as one table: 1,000 kills and more, a quarter of an hour (root)
	@./hack/faults

.PHONY: charts
charts: ## the Helm chart: lint, stable output, value sets
	@./charts/test

.PHONY: run-proof
run-proof: ## `chaperone run` around real clients and servers, in network namespaces (root)
	@./e2e/run-local

.PHONY: e2e
e2e: ## the proof in a real cluster (root)
	@./e2e/run

.PHONY: bench
bench: ## Chaperone beside HAProxy, Envoy and mitmproxy, as one table (root)
	@./bench/run

.PHONY: bench-core
bench-core: ## what decisions, records, heads, bodies, masks and proofs cost (criterion)
	cargo bench --locked -p chaperone-crds -p chaperone-sidecar -p chaperone-ledger

.PHONY: soak
soak: ## twenty minutes of mixed load, and whether memory grows (root)
	@./bench/soak

.PHONY: images
images: ## build the release images (static musl, from scratch)
	@./e2e/images/product --release

.PHONY: generate
generate: ## write the generated files: CRDs, record schema
	@./hack/generate .

include e2e/cluster/cluster.mk
