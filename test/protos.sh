#!/bin/sh
# Makes the Go code of our .proto files under DIR, or in their places: protos.sh [DIR]. The plugin is pinned in test/tools;
# protoc itself is the machine's (Debian: protobuf-compiler). Without one it says so and makes nothing.
set -eu
cd "$(dirname "$0")/.."
if ! command -v protoc >/dev/null; then
	echo "protos: no protoc here, the generated code is left as it is" >&2
	exit 0
fi
out=${1:-.}
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -modfile=test/tools/go.mod -o "$bin/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
protoc --plugin="$bin/protoc-gen-go" -I xds/api --go_out="$out" --go_opt=module=github.com/jurat-tls/jurat \
	jurat/config/v1alpha1/attestation.proto
