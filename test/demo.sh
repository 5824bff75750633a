#!/bin/sh
# The main job, on a laptop: a service that nobody changes, jurat before it, and a curl that knows nothing of attestation.
# KEEP=1 leaves the last service running.
set -eu
exec 2>&1
cd "$(dirname "$0")/.."
jurat=$PWD/bin/jurat
tmp=$(mktemp -d)
page= serve=
stop() {
	[ -z "$serve" ] || kill "$serve" 2>/dev/null || true
	[ -z "$serve" ] || wait "$serve" 2>/dev/null || true
	serve=
}
cleanup() {
	stop
	[ -z "$page" ] || kill "$page" 2>/dev/null || true
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '\n$ %s\n' "$*"; }
fail() {
	printf '\ndemo: %s\n' "$*" >&2
	exit 1
}
# await FILE TEXT: until the log has the line that says it.
await() {
	n=0
	until grep -q "$2" "$1" 2>/dev/null; do
		n=$((n + 1))
		[ $n -lt 200 ] || { cat "$1" >&2; fail "nothing says: $2"; }
		sleep 0.1
	done
}
free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
# serve NAME TEE: jurat before the service, under the root that the first start made.
serve() {
	say "jurat serve --tee $2 --listen 127.0.0.1:$front --to 127.0.0.1:$back &"
	"$jurat" serve --tee "$2,dir=$tmp/sim" --listen "127.0.0.1:$front" --to "127.0.0.1:$back" --log json 2>"$tmp/$1.log" &
	serve=$!
	await "$tmp/$1.log" '"msg":"listening"'
	echo "SIMULATED: listening on 127.0.0.1:$front"
}
# total NAME FIELD: a field of the last line that a stopped server logs.
total() { sed -n 's/.*"msg":"totals".*"'"$2"'":\([0-9]*\).*/\1/p' "$tmp/$1.log"; }

started=$(date +%s)
back=$(free_port) front=$(free_port)
mkdir "$tmp/site" && echo "hello from a service that nobody changed" >"$tmp/site/index.html"

say "python3 -m http.server $back --bind 127.0.0.1 &                 # your service, unchanged"
python3 -u -m http.server "$back" --bind 127.0.0.1 --directory "$tmp/site" >"$tmp/page.log" 2>&1 &
page=$!
await "$tmp/page.log" 'Serving HTTP'
serve good sim

say "jurat policy init --binding key 127.0.0.1:$front > policy.yaml   # says what you are about to trust"
"$jurat" policy init --binding key "127.0.0.1:$front" >"$tmp/policy.yaml"
cat "$tmp/policy.yaml"

say "jurat verify -p policy.yaml 127.0.0.1:$front"
"$jurat" verify -p "$tmp/policy.yaml" "127.0.0.1:$front" || fail "the good server was not affirmed"

say "jurat exec -p policy.yaml --to 127.0.0.1:$front -- curl -sS https://127.0.0.1:$front/"
got=$("$jurat" exec -p "$tmp/policy.yaml" --to "127.0.0.1:$front" -- curl -sS "https://127.0.0.1:$front/") || fail "curl failed"
echo "$got"
[ "$got" = "hello from a service that nobody changed" ] || fail "curl got another page"
stop
say "# application bytes that the first server read from curl: $(total good bytes_in)"
[ "$(total good bytes_in)" -gt 0 ] || fail "the counter did not count"

say "# the same service, now in a guest with the debug bit set"
serve debug sim,debug=on

say "jurat verify -p policy.yaml 127.0.0.1:$front"
code=0
"$jurat" verify -p "$tmp/policy.yaml" "127.0.0.1:$front" || code=$?
echo "exit $code"
[ $code = 6 ] || fail "verify ended with $code, not 6"

say "jurat exec -p policy.yaml --to 127.0.0.1:$front -- curl -sS https://127.0.0.1:$front/"
code=0
"$jurat" exec -p "$tmp/policy.yaml" --to "127.0.0.1:$front" -- curl -sS "https://127.0.0.1:$front/" || code=$?
echo "exit $code"
[ $code = 125 ] || fail "exec ended with $code, not 125"
if [ "${KEEP:-}" = 1 ]; then
	say "# left running: service $page, jurat $serve, files in $tmp"
	trap - EXIT
	exit 0
fi
stop
say "# application bytes that the second server read: $(total debug bytes_in)"
[ "$(total debug bytes_in)" = 0 ] || fail "application bytes reached a server that the policy refuses"
printf '\ndemo: ok in %s s\n' "$(($(date +%s) - started))"
