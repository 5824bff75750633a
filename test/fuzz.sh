#!/bin/sh
# Runs every fuzz target for a while: fuzz.sh 5s
set -eu
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for file in $(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do
	dir=$(dirname "$file")
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "fuzz: $dir $target"
		# Minimising an interesting input of a slow target would eat all of a short run.
		if ! go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 1x >"$log" 2>&1; then
			cat "$log" >&2
			exit 1
		fi
		tail -n 1 "$log"
	done
done
