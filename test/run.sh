#!/bin/sh
# Runs every test of every module, shows failures whole, and counts what was skipped.
set -u
cd "$(dirname "$0")/.."
race=-race
if ! command -v "${CC:-cc}" >/dev/null 2>&1; then
	race= CGO_ENABLED=0
	export CGO_ENABLED
	echo "test: no C compiler: without the race detector"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
for module in . test/oracle; do
	[ -f "$module/go.mod" ] || continue
	go -C "$module" test $race -v -timeout 15m ./... >>"$log" 2>&1 || status=1
done
if [ $status != 0 ]; then
	grep -vE '^ *(=== (RUN|PAUSE|CONT|NAME)|--- PASS|PASS$)' "$log"
else
	grep -E '^ok ' "$log"
fi
skipped=$(grep -cE '^ *--- SKIP' "$log")
passed=$(grep -cE '^ *--- PASS' "$log")
failed=$(grep -cE '^ *--- FAIL' "$log")
if [ "$skipped" != 0 ]; then
	echo
	echo "skipped:"
	grep -E -A1 '^ *--- SKIP' "$log" | grep -v '^--$'
fi
echo
echo "passed $passed, failed $failed, skipped $skipped"
if [ "$skipped" != 0 ] && [ "${JURAT_NO_SKIP:-}" = 1 ]; then
	# The one thing that no set-up can fetch is evidence of real hardware.
	allowed=$(grep -E -A1 '^ *--- SKIP' "$log" | grep -c 'vectors absent')
	if [ "${JURAT_VECTORS:-}" != absent ] || [ "$allowed" -lt "$skipped" ]; then
		echo "skips are forbidden here" >&2
		status=1
	fi
fi
exit $status
