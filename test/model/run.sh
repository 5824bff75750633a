#!/bin/sh
# Checks the variants of the protocol model, all of them or those whose name has the word given, and says for each what was
# expected (trace: Spin has to find a run that breaks it; none: it must not, having searched everything), what was found,
# and how many states were searched. Shows the relays in words; V=1 shows all traces.
set -eu
cd "$(dirname "$0")"

missing=
spin -V 2>/dev/null | grep -q '^Spin Version' || missing="$missing spin"
command -v cc >/dev/null 2>&1 || missing="$missing cc"
if [ -n "$missing" ]; then
	echo "model: SKIPPED, for want of:$missing" >&2
	[ -z "${JURAT_NO_SKIP:-}" ]
	exit
fi

# name | expected | definitions. All three properties are checked where none is expected.
variants() {
	cat <<'END'
key: relay with the leaked leaf key               | trace | LEVEL=1 CHECK_PEER
key: replay                                       | trace | LEVEL=1 CHECK_FRESH
key: no relay while leaf keys are kept            | none  | LEVEL=1 CHECK_PEER KEYS_KEPT
key: honest run accepts                           | trace | LEVEL=1 HONEST

nonce: relay with the leaked leaf key             | trace | LEVEL=2 CHECK_PEER
nonce: no replay                                  | none  | LEVEL=2 CHECK_FRESH
nonce: no relay while leaf keys are kept          | none  | LEVEL=2 CHECK_PEER KEYS_KEPT
nonce: honest run accepts                         | trace | LEVEL=2 HONEST

session                                           | none  | LEVEL=3 ALL
session, 4 connections                            | none  | LEVEL=3 ALL CONNS=4 REQS=1
session: honest run accepts                       | trace | LEVEL=3 HONEST
session, no exporter: relay                       | trace | LEVEL=3 CHECK_PEER NO_EXPORTER
session, no exporter or challenge: replay, others | trace | LEVEL=3 CHECK_FRESH NO_EXPORTER NO_CHALLENGE_FIELD REQS=1
session, no challenge: replay, same connection    | trace | LEVEL=3 CHECK_FRESH NO_CHALLENGE_FIELD NO_CHALLENGE_CONTEXT
session, challenge in the leaf only               | none  | LEVEL=3 ALL NO_CHALLENGE_CONTEXT
session, challenge in the exporter only           | none  | LEVEL=3 ALL NO_CHALLENGE_FIELD
session, no key in the leaf                       | none  | LEVEL=3 ALL NO_KEY_FIELD
session, nonces quoted as leaves are              | trace | LEVEL=3 CHECK_PEER NO_DOMAIN
session, no minimum level                         | trace | LEVEL=3 CHECK_PEER NO_MINIMUM

batched                                           | none  | LEVEL=3 BATCHED ALL
batched: honest run, two in one batch             | trace | LEVEL=3 BATCHED HONEST
batched, no exporter: relay                       | trace | LEVEL=3 BATCHED CHECK_PEER NO_EXPORTER
batched, no challenge: replay, same connection    | trace | LEVEL=3 BATCHED CHECK_FRESH NO_CHALLENGE_FIELD NO_CHALLENGE_CONTEXT
batched, no inclusion proof                       | trace | LEVEL=3 BATCHED CHECK_PEER NO_PROOF
batched, leaves of others let in                  | trace | LEVEL=3 BATCHED CHECK_PEER NO_OWN_LEAVES_ONLY

reconnect                                         | none  | LEVEL=3 RECONNECT ALL
reconnect, 4 connections                          | none  | LEVEL=3 RECONNECT ALL CONNS=4 REQS=1 STEADY
reconnect, batched                                | none  | LEVEL=3 RECONNECT BATCHED ALL REQS=1
reconnect: honest run accepts                     | trace | LEVEL=3 RECONNECT HONEST
reconnect, MAC without the new exporter: relay    | trace | LEVEL=3 RECONNECT CHECK_PEER NO_EXPORTER_IN_MAC
reconnect, secret not of the exporter             | trace | LEVEL=3 RECONNECT CHECK_PEER NO_EXPORTER_IN_SECRET
reconnect, not voided                             | trace | LEVEL=3 RECONNECT CHECK_POLICY NO_VOID
reconnect, secret noted under a later epoch       | trace | LEVEL=3 RECONNECT CHECK_POLICY NO_EPOCH_OF_APPRAISAL

mutual                                            | none  | LEVEL=3 MUTUAL ALL REQS=1
mutual, asked twice                               | none  | LEVEL=3 MUTUAL ALL CONNS=2
mutual, batched                                   | none  | LEVEL=3 MUTUAL BATCHED ALL REQS=1 STEADY
mutual, reconnect                                 | none  | LEVEL=3 MUTUAL RECONNECT ALL REQS=1 STEADY
mutual, reconnect, policy changes                 | none  | LEVEL=3 MUTUAL RECONNECT ALL CONNS=2 REQS=1
mutual, reconnect, asked twice                    | none  | LEVEL=3 MUTUAL RECONNECT ALL CONNS=2 STEADY
mutual: honest run, both accept                   | trace | LEVEL=3 MUTUAL HONEST CONNS=2
mutual, reconnect: honest run, both accept        | trace | LEVEL=3 MUTUAL RECONNECT HONEST CONNS=2
mutual, no role: reflection                       | trace | LEVEL=3 MUTUAL CHECK_PEER CONNS=2 NO_ROLE_FIELD NO_ROLE_LABEL
mutual, role in the leaf only                     | none  | LEVEL=3 MUTUAL ALL REQS=1 NO_ROLE_LABEL
mutual, role in the exporter's label only         | none  | LEVEL=3 MUTUAL ALL REQS=1 NO_ROLE_FIELD
mutual, reconnect, no role in the MAC: reflection | trace | LEVEL=3 MUTUAL RECONNECT CHECK_PEER CONNS=2 REQS=1 NO_ROLE_IN_MAC
END
}

# check NUMBER: writes NUMBER.line, and NUMBER.words of a trace.
check() {
	name=$(sed -n "$1s/ *|.*//p" list)
	expected=$(sed -n "$1s/[^|]*| *\([a-z]*\) *|.*/\1/p" list)
	flags= unknown=
	for d in $(sed -n "$1s/.*| *//p" list); do
		case $d in
		ALL) flags="$flags -DCHECK_PEER -DCHECK_FRESH -DCHECK_POLICY" ;;
		*) flags="$flags -D$d" && grep -qw "^#.*${d%%=*}" "$model" || unknown="$unknown $d" ;;
		esac
	done
	mkdir "$1"
	# Where a trace is looked for, the shortest is; the search that finds it is not exhaustive and needs no optimiser.
	compile=-O1 search=
	[ "$expected" = trace ] && compile='-O0 -DREACH' search=-i
	# shellcheck disable=SC2086
	(
		cd "$1"
		[ -z "$unknown" ] || { echo "the model knows nothing of$unknown" && exit 1; }
		spin -P'cc -E -x c' $flags -a "$model" && cc -w $compile -DSAFETY -DNOREDUCE -o pan pan.c && ./pan -n -w20 -m100000 $search
	) >"$1/out" 2>&1 || echo "exit $?" >>"$1/out"
	found="no result"
	if [ -f "$1/jurat.pml.trail" ] && grep -q '^pan:[0-9]*: assertion violated' "$1/out"; then
		found=trace
		# In the variant's own directory: Spin keeps a file of fixed name where it runs.
		# shellcheck disable=SC2086
		(cd "$1" && spin -P'cc -E -x c' $flags -T -k jurat.pml.trail "$model") | sed '/^spin:/,$d; s/^/    /' >"$1.words"
		[ -s "$1.words" ] || found="trace without words"
	elif grep -q 'errors: 0$' "$1/out" && grep -q '^Full statespace search' "$1/out" &&
		! grep -Eqi '^exit|not completed|too small|out of memory|truncat|abort|interrupt|resizing failed|hash-compact|bit ?state|error:' "$1/out"; then
		found=none
	fi
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$1/out")
	verdict=
	[ "$found" = "$expected" ] || { verdict="  DEVIATES" && : >deviates && cp "$1/out" "$1.out"; }
	printf '%-50s expected %-5s  found %-5s  %7s states%s\n' "$name" "$expected" "$found" "${states:--}" "$verdict" >"$1.line"
	rm -r "$1"
}

model=$PWD/jurat.pml
if [ "${1:-}" = --check ]; then
	cd "$2"
	check "$3"
	exit
fi
self=$PWD/run.sh
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
variants | grep -v '^$' | grep -e "${1:-}" >"$tmp/list" || { echo "model: no variant has \"$1\" in its line" >&2 && exit 1; }
cd "$tmp"
count=$(wc -l <list)
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
seq "$count" | xargs -n 1 -P "$jobs" sh "$self" --check "$tmp"
n=0
while [ "$n" -lt "$count" ]; do
	n=$((n + 1))
	cat "$n.line"
	case $(cat "$n.line") in
	*DEVIATES*)
		cat "$n.out"
		[ ! -f "$n.words" ] || cat "$n.words"
		;;
	*relay\ with*trace*) cat "$n.words" ;;
	*) [ -z "${V:-}" ] || [ ! -f "$n.words" ] || cat "$n.words" ;;
	esac
done
if [ -f deviates ]; then
	echo "model: a variant deviates from what is expected of it" >&2
	exit 1
fi
echo "model: $count variants, all as expected"
