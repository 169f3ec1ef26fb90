# The commands of the developer and of CI are the same: `make check` is what .ci/run does.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

BIN     := $(CURDIR)/.bin
APPS    := $(notdir $(patsubst %/,%,$(dir $(wildcard apps/*/main.go))))
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

TOOLS := $(addprefix $(BIN)/tools/,golangci-lint wire)
PEERS := $(addprefix $(BIN)/peers/,generic-worker livelog start-worker taskcluster taskcluster-proxy websocktunnel)
OTEL  := $(BIN)/peers/otelcol
EC2   := $(BIN)/peers/ec2-metadata-mock

# Every module of the workspace, the root first.
MODULES = $(shell go list -m -f '{{.Dir}}')

# How long each fuzz test of `make fuzz` runs.
FUZZTIME ?= 20s

# What `make chaos` runs, for each engine. An empty seed is another one each time.
ENGINES ?= native docker
TASKS   ?= 500
KILLS   ?= 50
SEED    ?=
KEEP    ?=

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(BIN)/dc-linux-worker ## Build the worker, and a real open-source program with it.
	scripts/demo $<

.PHONY: demo-docker
demo-docker: setup $(BIN)/dc-linux-worker ## Build an image, and run a task of docker-worker in it.
	scripts/demo-docker $(BIN)/dc-linux-worker

.PHONY: test
test: setup embedded ## Install what the tests need, and test every module.
	go test -race -shuffle=on -timeout=15m work

.PHONY: check
check: generate tidy ## All that CI checks, but for the demo: nothing may change, all must pass.
	git diff --exit-code
	$(MAKE) lint test

.PHONY: build
build: $(APPS:%=$(BIN)/%) ## Build every app into .bin.

# Go knows best whether anything changed.
$(BIN)/%: FORCE embedded
	CGO_ENABLED=0 go build -C apps/$* -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o $@ .

.PHONY: FORCE
FORCE:

# Engines embed small programs: the native one would otherwise have to start the
# whole worker for each task, the docker one needs one that any image can run.
.PHONY: embedded
embedded: ## Build the small programs that the engines embed: needed after they change.
	go generate ./adapters/native ./adapters/docker

.PHONY: setup
setup: ## Install what the tests need.
	scripts/setup

.PHONY: lint
lint: $(BIN)/tools/golangci-lint arch cross ## Lint every module.
	$< run $(MODULES:%=%/...)

.PHONY: arch
arch: ## Check who imports and links what.
	go test -count=1 ./build/arch

.PHONY: cross
cross: ## Compile what every operating system shares for each of them.
	for goos in linux darwin windows; do GOOS=$$goos go build ./domain/... ./ports/... $(if $(wildcard pkg),./pkg/...); done

.PHONY: generate
generate: $(BIN)/tools/wire ## Regenerate what is generated: wire_gen.go and deps.txt.
	for app in $(APPS); do (cd apps/$$app && $< gen .); done
	$(MAKE) deps

.PHONY: deps
deps: ## Regenerate the list of what each app links.
	go test -count=1 ./build/arch -run '^TestDeps$$' -update

.PHONY: tidy
tidy: ## Tidy every go.mod, and align versions across the workspace.
	go work sync
	for module in $(MODULES); do GOWORK=off go mod tidy -C $$module; done

.PHONY: bench
bench: build peers ## Measure the worker, and generic-worker beside it.
	scripts/bench

.PHONY: chaos
chaos: setup embedded ## Run tasks while everything fails: make chaos ENGINES=native TASKS=100 KILLS=10 SEED=42 KEEP=DIR.
	scripts/chaos "$(ENGINES)" "$(TASKS)" "$(KILLS)" "$(SEED)" "$(KEEP)"

.PHONY: fuzz
fuzz: ## Fuzz every fuzz test for FUZZTIME.
	scripts/fuzz $(FUZZTIME)

.PHONY: tools
tools: $(TOOLS) ## Build the tools: golangci-lint and wire.

.PHONY: peers
peers: $(PEERS) $(OTEL) $(EC2) ## Build the other programs that tests run against.

.PHONY: collector
collector: $(OTEL) ## Build the OpenTelemetry collector that tests send to.

# Tools and peers live in modules of their own, outside the workspace, so that
# their dependencies do not raise those of the apps. Each is built once for
# each state of its go.mod and go.sum.
$(TOOLS) &: build/tools/go.mod build/tools/go.sum
	GOWORK=off go build -C build/tools -trimpath -buildvcs=false -o $(BIN)/tools/ tool
	touch $(TOOLS)

$(PEERS) &: build/peers/go.mod build/peers/go.sum
	GOWORK=off go build -C build/peers -trimpath -buildvcs=false -tags simple -o $(BIN)/peers/ tool
	mv $(BIN)/peers/client-shell $(BIN)/peers/taskcluster
	touch $(PEERS)

$(OTEL): build/otelcol/go.mod build/otelcol/go.sum build/otelcol/main.go
	GOWORK=off go build -C build/otelcol -trimpath -buildvcs=false -o $@ .
	touch $@

$(EC2): build/ec2mock/go.mod build/ec2mock/go.sum
	GOWORK=off go build -C build/ec2mock -trimpath -buildvcs=false -o $@ github.com/aws/amazon-ec2-metadata-mock/cmd/ec2-metadata-mock
	touch $@

.PHONY: clean
clean: ## Remove all that is built.
	rm -rf $(BIN) .work
