#!/bin/sh
# Fetches the programs named, or all that the tests use, as Debian packages. Without root it names what is missing: the
# tests that need it are skipped, and counted.
set -eu
[ "${1:-}" = all ] && set -- curl wget git python3 requests node openssl cc swtpm
missing= packages=
for p in "$@"; do
	package=$p
	have() { command -v "$p" >/dev/null 2>&1; }
	case $p in
	requests) package=python3-requests; have() { python3 -c 'import requests' 2>/dev/null; } ;;
	node) package=nodejs ;;
	cc) package='gcc libc6-dev' ;;
	spin) have() { spin -V 2>/dev/null | grep -q '^Spin Version'; } ;; # others have that name
	esac
	have || { missing="$missing $p" packages="$packages $package"; }
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "setup: fetching$packages"
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086
	if { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >/dev/null 2>"${TMPDIR:-/tmp}/jurat-setup.log"; then
		exit 0
	fi
	cat "${TMPDIR:-/tmp}/jurat-setup.log" >&2
fi
echo "setup: missing:$missing (Debian packages:$packages); tests that need them are skipped" >&2
