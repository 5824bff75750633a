# Every target works on a fresh machine with Go; `make test` fetches the rest where it may.
GOFLAGS_BUILD = -trimpath -buildvcs=false -ldflags='-s -w -buildid='
TOOL = go tool -modfile=test/tools/go.mod

.PHONY: help build libjurat demo test ego interop lint bench bench-ratio bench-session bench-proxy bench-control soak emergency fuzz fuzz-smoke model relaylab repro generate mutation mutation-ego

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/jurat: static, reproducible
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o bin/jurat ./cmd/jurat

LIBDIR ?= bin

libjurat: ## build $(LIBDIR)/libjurat.so, the same appraisal for other languages, and its header: reproducible (needs a C compiler)
	@test/setup.sh cc
	@mkdir -p $(LIBDIR)
	CGO_ENABLED=1 go build $(GOFLAGS_BUILD) -tags netgo,osusergo -buildmode=c-shared -o $(LIBDIR)/libjurat.so ./cmd/libjurat
	@cp cmd/libjurat/jurat.h $(LIBDIR)/ && rm $(LIBDIR)/libjurat.h

demo: ## the main job in under a minute: an attested page, then a refusal (KEEP=1 leaves it running)
	@test/setup.sh curl python3
	@$(MAKE) --no-print-directory build
	@test/demo.sh

test: ## all tests, with the race detector; fetches the clients they use
	@test/setup.sh all
	@test/run.sh

ego: ## build bin/jurat-ego, with the attester for enclaves run by EGo, and test it (needs a C compiler)
	@test/setup.sh cc
	@test/ego.sh

interop: ## istiod, Envoy Gateway and Envoy with ours; builds the first two once, which takes half an hour; RUN=TestIstio runs that alone
	@test/setup.sh ip nft envoy
	@$(MAKE) --no-print-directory build bin/pilot-discovery bin/envoy-gateway
	@go test -C test/interop -count=1 -timeout 20m -v -run '$(or $(RUN),.)' ./...

bin/pilot-discovery: test/interop/istio/go.mod test/interop/istio/go.sum
	nice go build -C test/interop/istio -o ../../../$@ istio.io/istio/pilot/cmd/pilot-discovery

bin/envoy-gateway: test/interop/gateway/go.mod test/interop/gateway/go.sum
	nice go build -C test/interop/gateway -o ../../../$@ github.com/envoyproxy/gateway/cmd/envoy-gateway

model: ## check the protocol against its adversary in Spin: V=1 shows every trace in words
	@test/setup.sh spin cc
	@test/model/run.sh

lint: ## gofumpt, vet, staticcheck, generated files
	@test/lint.sh

bench: ## benchmarks; each warm verification beside the signature verifications it can't avoid; the data plane beside others
	go test -run '^$$' -bench . -benchmem ./...
	@$(MAKE) --no-print-directory bench-ratio bench-proxy

bench-ratio: ## the verifications alone
	@go build -C test/tools -o ../../bin/bench ./bench
	@bin/bench ./attest/...

bench-session: ## sessions behind a slow quote engine beside an instant one, and what a session costs beside plain TLS
	@go build -o bin/benchsession ./test/benchsession
	@bin/benchsession

bench-proxy: ## jurat's data plane beside nginx, HAProxy, Caddy and Envoy in one run; ARGS="-rounds 1 -works h1,new -h" and so on
	@test/setup.sh nginx haproxy caddy wrk h2load taskset envoy
	@$(MAKE) --no-print-directory build
	@go build -o bin/benchproxy ./test/benchproxy
	@bin/benchproxy $(ARGS)

bench-control: ## pushes of a control plane to CLIENTS (1000,5000) delta clients, plain and attested, clients in the same process
	@JURAT_LOAD=$${CLIENTS:-1000,5000} go test -count=1 -run TestLoad -v -timeout 30m ./xds/control

soak: ## 20,000 connections (SOAK) with faults at every step, under the race detector; 10,000 open ones (OPEN) attested anew; 10,000 (CROWD) in use, with faults
	go test -race -count=1 -timeout 60m -v -run '^TestSoak$$' ./ratls/session -soak $(or $(SOAK),20000)
	go test -count=1 -timeout 60m -v -run '^TestManyOpen$$' ./ratls/session -open $(or $(OPEN),10000)
	go test -count=1 -timeout 60m -v -run '^TestCrowd$$' ./proxy -crowd $(or $(CROWD),10000) -chaos $(or $(CHAOS),2m)
	go test -count=1 -timeout 60m -v -run '^TestCrowd$$' ./proxy -crowd $(or $(CROWD),5000) -chaos 1m -portable

emergency: ## 10,000 open connections (OPEN) of three generations, of which one is denied: gone in 250 ms, and nobody else notices; 1,000 proxies (FLEET) of a control plane, 20 connections each (EACH): in 1 s; a control plane killed during 1,000 changes (CHANGES)
	go test -count=1 -timeout 20m -v -run '^TestEmergency$$' ./proxy -emergency $(or $(OPEN),10000)
	go test -count=1 -timeout 30m -v -run '^TestFleetEmergency$$' ./cmd/jurat -fleet $(or $(FLEET),1000) -fleetopen $(or $(EACH),20)
	go test -count=1 -timeout 60m -v -run '^TestControlPlaneKilled$$' ./test/e2e -changes $(or $(CHANGES),1000)

# What decides over evidence, and what that stands on. Simulated platforms decide nothing.
MUTATE ?= ./attest ./attest/azure ./attest/cca ./attest/cose ./attest/dcap ./attest/ear ./attest/endorse ./attest/eventlog \
	./attest/evlog ./attest/merkle ./attest/nitro ./attest/record ./attest/seal ./attest/sgx ./attest/sgx/collect ./attest/snp \
	./attest/strictcbor ./attest/strictjson ./attest/tdx ./attest/tpm ./attest/tsm ./ratls/batch ./ratls/enforce ./ratls/session ./ratls/wellknown
# Of the policy, what judges; the rest reads it, and tells about it.
JUDGES = /(judge|platform|policy)\.go:

mutation: ## remove the checks of MUTATE's packages one by one: each removal has to fail a test
	@test/setup.sh swtpm
	@go build -C test/tools -o ../../bin/mutation ./mutation
	@bin/mutation -allow test/mutation.txt $(MUTATE)
	@$(if $(filter file,$(origin MUTATE)),bin/mutation -allow test/mutation.txt -run '$(JUDGES)' ./attest/policy)

mutation-ego: ## the same for the attester that needs EGo's library and a C compiler
	@go build -C test/tools -o ../../bin/mutation ./mutation
	@CGO_ENABLED=1 GOFLAGS=-tags=ego bin/mutation -allow test/mutation.txt ./attest/sgx/ego

fuzz-smoke: ## run every fuzz target for a moment (FUZZTIME)
	@test/fuzz.sh $(or $(FUZZTIME),5s)

fuzz: ## run every fuzz target for FUZZTIME (10m), JOBS (2) at a time, those that match FUZZ; goes on where it was stopped
	@JOBS=$(JOBS) FUZZ='$(FUZZ)' test/fuzz.sh $(or $(FUZZTIME),10m) bin/fuzz

relaylab: ## every known attack on attested TLS, each relay RELAYS (10000) times, and a table of what came of them
	@JURAT_RELAYLAB=$(or $(RELAYS),10000) go test -C test/relaylab -count=1 -timeout 60m

repro: ## build twice in two directories and compare; MADE=build leaves the library out
	@test/repro.sh $(or $(MADE),build libjurat)

generate: ## generate what is generated
	go generate ./...
	go run ./cmd/jurat policy schema >docs/policy.schema.json
	go run ./cmd/jurat serve --schema >docs/config.schema.json
	go -C test/tools run ./genconfig reference ../../docs/config.schema.json ../../docs/config.md
