# What people call: deps, build, lint, test, e2e, fuzz, model, bench-micro, clean. Everything a
# target needs it makes itself.

GO       ?= go
FUZZTIME ?= 10s
BENCHTIME  ?= 200ms
BENCHCOUNT ?= 1
IMAGE    ?= ghcr.io/culvert-net/culvert:dev
VERSION  ?=
REVISION ?=

# Tools are built into a folder named by the hash of what they are made of, so
# that a change of version builds them anew and nothing else does.
TOOLS    := .bin/$(shell cat tools/go.mod tools/go.sum | cksum | cut -d' ' -f1)-$(shell $(GO) env GOVERSION)
LINT     := $(CURDIR)/$(TOOLS)/golangci-lint
GOFUMPT  := $(CURDIR)/$(TOOLS)/gofumpt
MODULES  := . tools test/deploy examples/clients
OTHER_OS := darwin windows
# The packages that every byte passes: they have benchmarks, and may not allocate.
FAST     := ./pkg/noise ./pkg/channel ./pkg/tunnel ./pkg/relay ./internal/pump ./internal/sock

.DEFAULT_GOAL := build
.PHONY: help deps build images tools lint fmt test unit bench-micro e2e e2e-short e2e-compose e2e-kube chaos bench bench-check deploy-test fuzz model clean

help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

deps: ## install what is missing: Debian packages (as root), modules, linters
	scripts/install-packages
	@set -e; for m in $(MODULES); do (cd $$m && $(GO) mod download); done
	@$(MAKE) --no-print-directory tools

tools: $(LINT)

# GOFLAGS is cleared so that a -mod or -tags meant for the project does not reach the tools.
$(LINT): tools/go.mod tools/go.sum
	@echo "building golangci-lint and gofumpt: some minutes, once"
	@mkdir -p $(@D)
	cd tools && GOFLAGS= CGO_ENABLED=0 $(GO) build -trimpath -o $(CURDIR)/$(TOOLS)/ tool
	@$@ version >/dev/null && touch $@

build: ## static binaries into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

# Made without docker, so that the digests are the same wherever they are made. What
# the programs say they are is VERSION and REVISION, or what git says.
images: ## container images into bin/images, reproducible, named IMAGE; docker gets the one of this machine, if it runs
	$(GO) run ./scripts/images -o bin/images -name $(IMAGE) -version "$(VERSION)" -revision "$(REVISION)"
	@if docker info >/dev/null 2>&1; then docker load -i bin/images/culvert-$$($(GO) env GOHOSTARCH).tar; \
	  else echo "docker does not run here: load bin/images/culvert-ARCH.tar where images are wanted"; fi

lint: tools ## formatting, linters, tidy modules, and the systems the tests do not run on
	@unformatted=$$($(GOFUMPT) -l .); [ -z "$$unformatted" ] || { echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; }
	$(LINT) run ./...
	@set -e; for m in test/deploy examples/clients; do (cd $$m && $(LINT) run --config $(CURDIR)/.golangci.yml ./...); done
	@set -e; for m in $(MODULES); do echo "go mod tidy -diff ($$m)"; (cd $$m && $(GO) mod tidy -diff); done
	@set -e; for os in $(OTHER_OS); do echo "GOOS=$$os go build, go vet"; \
	  GOOS=$$os CGO_ENABLED=0 $(GO) build ./...; GOOS=$$os CGO_ENABLED=0 $(GO) vet ./...; done

fmt: tools ## format all Go code
	$(GOFUMPT) -w .

test: ## everything a change must pass
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory e2e-short
	@$(MAKE) --no-print-directory deploy-test

# What allocates is counted without the race detector, which allocates itself.
unit: ## the packages' own tests, with the race detector, in random order; what allocates, without it
	$(GO) test -race -shuffle=on -timeout 8m ./...
	cd examples/clients && $(GO) test -race -count=1 -timeout 4m ./...
	$(GO) test -run Alloc $(FAST)

# One binary of tests at a time, and each benchmark BENCHCOUNT times, as benchstat
# takes it: make bench-micro >old.txt; make bench-micro >new.txt; benchstat old.txt new.txt
bench-micro: ## the packages' benchmarks, each for BENCHTIME (200ms) BENCHCOUNT (1) times; benchstat reads the output
	$(GO) test -p 1 -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -count $(BENCHCOUNT) $(FAST)

# Most of these tests wait for time-outs of programs: more of them than there are
# processors can do so at once.
e2e-short: ## built binaries and real servers, the set that make test runs
	$(GO) test -tags e2e -short -count=1 -parallel 4 -timeout 12m ./test/e2e

e2e: deps ## built binaries and real servers, the full matrix
	$(GO) test -tags e2e -count=1 -timeout 40m -v ./test/e2e

# Others may work on the machine of the cluster, so its tests wait by events and minutes.
e2e-kube: ## deploy/k8s on the cluster that KUBECONFIG names; LOAD is the command that loads image archives (docs/testing.md)
	CULVERT_E2E_LOAD="$(LOAD)" $(GO) test -tags e2ekube -count=1 -timeout 30m -v -run '$(RUN)' ./test/e2ekube
	$(GO) test -tags e2ekube -count=1 -v -run 'TestCluster' ./internal/kubetoken

e2e-compose: ## the demos in deploy/compose on a Docker engine, as their README pages say; as root: installs Docker if there is none
	scripts/install-packages docker
	$(GO) test -tags e2e -count=1 -timeout 30m -v ./test/e2ecompose

# One test after the other, so that each one's pauses are its own.
chaos: deps ## streams outlive what is done to their paths: the long forms, summed up in the last lines
	$(GO) test -count=1 -v -run 'TestManyResumes' ./pkg/channel
	$(GO) test -tags e2e -count=1 -timeout 40m -parallel 1 -v -run 'TestSurvive' ./test/e2e -chaos

bench: deps build ## Culvert beside what people use, all cases: half an hour; results in bin/bench.json
	$(GO) run ./test/bench -json bin/bench.json

bench-check: deps build ## Culvert beside plain splice proxies, in a minute: fails when it has become much slower
	$(GO) run ./test/bench -check -rounds 2 -paths '^(splice|culvert.*)$$' -cases '^(throughput-(down-1|up-8)|request-64|connect)$$'

deploy-test: ## what is in deploy/ and the Dockerfile, against schemas and rules
	cd test/deploy && $(GO) test -count=1 ./...

fuzz: ## every fuzz target for FUZZTIME (10s)
	scripts/fuzz $(FUZZTIME)

model: ## the resume protocol's model in docs/model, every state of it
	scripts/model

clean: ## remove what was built, the tools too
	rm -rf bin .bin
