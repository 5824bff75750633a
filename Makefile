# Every target works on a fresh machine with Go; `make test` fetches the rest where it may.
GOFLAGS_BUILD = -trimpath -buildvcs=false -ldflags='-s -w -buildid='
TOOL = go tool -modfile=test/tools/go.mod
FUZZTIME ?= 5s

.PHONY: help build demo test lint bench fuzz-smoke repro generate

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/jurat: static, reproducible
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o bin/jurat ./cmd/jurat

demo: ## the main job in under a minute: an attested page, then a refusal (KEEP=1 leaves it running)
	@test/setup.sh curl python3
	@$(MAKE) --no-print-directory build
	@test/demo.sh

test: ## all tests, with the race detector; fetches the clients they use
	@test/setup.sh all
	@test/run.sh

lint: ## gofumpt, vet, staticcheck, generated files
	@test/lint.sh

bench: ## benchmarks
	go test -run '^$$' -bench . -benchmem ./...

fuzz-smoke: ## run every fuzz target for FUZZTIME
	@test/fuzz.sh $(FUZZTIME)

repro: ## build twice in two directories and compare
	@test/repro.sh

generate: ## generate what is generated
	go generate ./...
