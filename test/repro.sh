#!/bin/sh
# Builds from two directories with two empty caches and compares the bytes: repro.sh TARGET..., of build and libjurat.
set -eu
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
for copy in first a/second/deeper; do
	mkdir -p "$tmp/$copy"
	git ls-files -z --cached --others --exclude-standard | xargs -0 -I{} sh -c 'test -e "$1" && cp --parents "$1" "$2"' _ {} "$tmp/$copy"
	(cd "$tmp/$copy" && GOCACHE="$tmp/cache-$(basename "$copy")" make --no-print-directory "$@")
done
for target; do
	made=libjurat.so
	[ "$target" = libjurat ] || made=jurat
	sha256sum "$tmp/first/bin/$made" "$tmp/a/second/deeper/bin/$made" | sed "s|$tmp/||"
	cmp "$tmp/first/bin/$made" "$tmp/a/second/deeper/bin/$made"
done
echo "repro: identical"
