#!/bin/sh
# Builds what has the tag ego, with the C compiler it needs, and runs its tests over the unmodified library. The binary of
# a plain go build has its attester but runs in no enclave; for one that does, build with ego-go.
set -eu
cd "$(dirname "$0")/.."
export CGO_ENABLED=1
go vet -tags ego ./attest/sgx/... ./cmd/jurat
go tool -modfile=test/tools/go.mod staticcheck -tags ego ./attest/sgx/... ./cmd/jurat
go build -tags ego -trimpath -buildvcs=false -o bin/jurat-ego ./cmd/jurat
go test -race -tags ego ./attest/sgx/...
go test -tags ego -run 'TestScripts/(notee|usage)' ./cmd/jurat
echo "ego: built and tested"
