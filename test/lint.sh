#!/bin/sh
# gofumpt, vet, staticcheck, and generated files that are what their sources say.
set -eu
cd "$(dirname "$0")/.."
tool() { go tool -modfile=test/tools/go.mod "$@"; }
unformatted=$(tool gofumpt -l .)
if [ -n "$unformatted" ]; then
	printf 'not formatted (gofumpt -w):\n%s\n' "$unformatted" >&2
	exit 1
fi
go vet ./...
tool staticcheck ./...
for module in test/tools test/oracle test/emulate/tsmfs test/interop; do
	[ -f "$module/go.mod" ] && go -C "$module" vet ./...
done
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go -C test/tools run ./gencodes "$PWD/attest/codes.yaml" "$tmp/codes_gen.go" "$tmp/codes.md"
cmp attest/codes_gen.go "$tmp/codes_gen.go"
cmp docs/codes.md "$tmp/codes.md"
go run ./cmd/jurat policy schema >"$tmp/policy.schema.json"
cmp docs/policy.schema.json "$tmp/policy.schema.json"
go -C test/tools run ./genconfig comments "$tmp/comments_gen.go" ../../cmd/jurat ../../xds/guard ../../proxy/chain ../../proxy/config ../../proxy/route ../../proxy/upstream
cmp cmd/jurat/comments_gen.go "$tmp/comments_gen.go"
go run ./cmd/jurat serve --schema >"$tmp/config.schema.json"
cmp docs/config.schema.json "$tmp/config.schema.json"
cp docs/config.md "$tmp/config.md"
go -C test/tools run ./genconfig reference ../../docs/config.schema.json "$tmp/config.md"
cmp docs/config.md "$tmp/config.md"
test/protos.sh "$tmp" # which makes nothing, and says so, where there is no protoc
for made in $(cd "$tmp" && find xds -name '*.pb.go' 2>/dev/null); do
	# Which protoc it was is written into the code, and makes no difference to it.
	grep -v '^// 	protoc  ' "$made" >"$tmp/committed"
	grep -v '^// 	protoc  ' "$tmp/$made" | cmp "$tmp/committed" -
done
go mod tidy -diff
echo "lint: clean"
