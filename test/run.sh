#!/bin/sh
# Runs every test of every module.
set -eu
cd "$(dirname "$0")/.."
bin=$(mktemp)
trap 'rm -f "$bin"' EXIT
CGO_ENABLED=0 go -C test/tools build -o "$bin" ./runtests
"$bin" . test/oracle test/emulate/tsmfs test/tools
