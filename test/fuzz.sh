#!/bin/sh
# Runs the fuzz targets, each for a while with one worker: fuzz.sh 10m [DIR]
#
# JOBS of them (2) run side by side; FUZZ is a regular expression that chooses among them: 'attest/snp/FuzzParse$'. DIR
# keeps a log and a result of each. A target that has a result for the same time or a longer one is not run again, so that
# a run that was stopped goes on when it is started again; Go keeps the inputs that each target has found.
set -eu

# one DIR TIME PACKAGE TARGET: runs one target.
one() {
	out=$1 time=$2 package=$3 target=$4
	name=$(echo "$package/$target" | tr / .)
	# Minimising an interesting input of a slow target would eat most of a run.
	go test "./$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1x -parallel 1 -timeout 0 \
		>"$out/$name.log" 2>&1 && code=0 || code=$?
	count=$(sed -n 's/.* execs: \([0-9]*\) .*/\1/p' "$out/$name.log" | tail -n 1)
	if [ "$code" = 0 ]; then
		result=clean
	elif [ -n "$count" ] && ! grep -Eq 'Failing input|panic:|seed#|minimizing|_test\.go:' "$out/$name.log" &&
		grep -q 'context deadline exceeded' "$out/$name.log"; then
		result=clean # an execution was under way when the time was over
	else
		result=FINDING
	fi
	# A run that was stopped has no result.
	[ "$result" = FINDING ] && grep -q 'signal: \|interrupt' "$out/$name.log" && ! grep -q 'Failing input' "$out/$name.log" && exit 255
	printf '%s/%s %s %s %s\n' "$package" "$target" "$time" "${count:-0}" "$result" >"$out/$name.result"
	printf 'fuzz: %s %s: %s executions in %s: %s\n' "$package" "$target" "${count:-0}" "$time" "$result"
	[ "$result" = clean ] || sed 's/^/  /' "$out/$name.log" | tail -n 60 >&2
}

if [ "${1-}" = one ]; then
	shift
	trap 'exit 255' INT TERM
	one "$@"
	exit 0
fi

time=$1 out=${2-}
cd "$(dirname "$0")/.."
if [ -z "$out" ]; then
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
fi
mkdir -p "$out"
seconds() { echo "$1" | awk '{ n = $0 + 0; if (/h$/) n *= 3600; else if (/m$/) n *= 60; print n }'; }
git ls-files '*_test.go' | xargs grep -H '^func Fuzz' | sed -n 's,^\(.*\)/[^/]*:func \(Fuzz[A-Za-z0-9_]*\)(.*,\1/\2,p' |
	grep -E -- "${FUZZ:-.}" >"$out/targets"
while read -r target; do
	result=$out/$(echo "$target" | tr / .).result
	if [ -f "$result" ] && read -r _ took _ verdict <"$result" && [ "$verdict" = clean ] && [ "$(seconds "$took")" -ge "$(seconds "$time")" ]; then
		echo "fuzz: $target: done before" >&2
		continue
	fi
	rm -f "$result"
	printf '%s\n%s\n' "${target%/*}" "${target##*/}"
done <"$out/targets" | xargs -r -n 2 -P "${JOBS:-2}" test/fuzz.sh one "$out" "$time" || :

echo "fuzz: target, time, executions, result"
while read -r target; do
	cat "$out/$(echo "$target" | tr / .).result" 2>/dev/null || echo "$target - 0 STOPPED"
done <"$out/targets" | tee "$out/summary" | sed "s,^,  ,"
! grep -qv ' clean$' "$out/summary"
