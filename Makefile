# Corridor's work, by name. `make` alone lists the targets.
# What runs where is decided in .ci/ and bench/; this file only calls it.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

FUZZTIME ?= 10s
# Where aws-nitro-enclaves-cli has its kernel and its init.
BLOBS ?= /usr/share/nitro_enclaves/blobs
# What the enclave of make eif is started with, a name at least.
ARGS ?= --fqdn localhost

# Static, without paths, without the state of the checkout: what is left is the
# sources, so that the same sources give the same binaries wherever they are built.
GOBUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w'

.PHONY: help build demo test bench lint fuzz pgo deps image eif clean

help: ## list these targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name what; do printf '  %-8s %s\n' "$$name" "$$what"; done

build: ## build enclave, enclave-sim, host, bench and attest into bin/
	@mkdir -p bin
	go run -trimpath ./enclave/page/pack enclave/page/built
	$(GOBUILD) -o bin/enclave ./enclave
	$(GOBUILD) -tags sim -o bin/enclave-sim ./enclave
	$(GOBUILD) -o bin/host ./host
	$(GOBUILD) -o bin/bench ./bench
	$(GOBUILD) -o bin/attest ./attestation/attest

demo: build ## send a request through the whole corridor on this machine, and show each hop
	@bin/bench demo

test: deps ## run all tests, with the race detector; a test that cannot run here says what it needs
	@mkdir -p artifacts # what browsers show of the pages is kept there
	CGO_ENABLED=1 CORRIDOR_PICTURES=$(CURDIR)/artifacts go run ./bench/testrun -race ./...

bench: build ## measure the hops beside their peers in under ten minutes; the report and its page are in artifacts/
	@mkdir -p artifacts
	bin/bench run --within 8m --out artifacts/bench.json
	bin/bench html --report artifacts/bench.json --out artifacts/bench.html

lint: ## check format, vet, staticcheck, and the rules of the house
	.ci/lint

fuzz: ## fuzz every parser of foreign bytes, each for FUZZTIME (10s)
	.ci/fuzz $(FUZZTIME)

pgo: build deps ## profile the front for the compiler: artifacts/default.pgo, to be put in the place of enclave/default.pgo
	@mkdir -p artifacts
	.ci/pgo artifacts/default.pgo

deps: ## install what the tests need beside Go (as root), or list what is missing
	@.ci/deps

image: ## build the two container images, corridor-enclave and corridor-host, with docker
	docker build --target enclave -t corridor-enclave .
	docker build --target host -t corridor-host .

eif: build ## make artifacts/enclave.eif, an enclave image, from BLOBS and with ARGS for the enclave; no docker
	@mkdir -p artifacts
	.ci/eif $(BLOBS) bin/enclave bin/attest artifacts/enclave.eif $(ARGS)

clean: ## remove what the targets above made in this folder
	rm -rf bin artifacts enclave/page/built/verify.wasm.gz enclave/page/built/wasm_exec.js
