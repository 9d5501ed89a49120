#!/bin/sh
# Make a virtual environment at $1. Debian splits `ensurepip` off into python3-venv: fetch that when it
# is missing and we may, else say what to install.
set -eu
for python in "$PYTHON" python3.11 python3; do
    "$python" -m venv "$1" 2>/dev/null && exit 0
    rm -rf "$1"
    [ "$(id -u)" = 0 ] && break
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
    exec "$PYTHON" -m venv "$1"
fi
echo "no venv module for $PYTHON: install the package python3-venv" >&2
exit 1
