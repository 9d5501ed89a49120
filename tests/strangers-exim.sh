#!/bin/sh
# Exim from Debian's package, unpacked and not installed: exim4-daemon-light would push Postfix out.
# As root: the binary alone goes to EXIM, its libraries are installed, and the user it insists on is made.
# Without root: say what is missing; the tests that want it are skipped and say so too.
set -eu

PACKAGE=exim4-daemon-light
EXIM=/usr/local/lib/mailrail-strangers/exim4
EXIM_USER=Debian-exim  # compiled into Debian's binary; it does not start where there is none
LOCK=/run/lock/mailrail-strangers

if [ -x "$EXIM" ] && id "$EXIM_USER" >/dev/null 2>&1; then
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    echo "missing, and tests that want it are skipped: $EXIM (as root: sh tests/strangers-exim.sh)" >&2
    exit 0
fi

exec 9>"$LOCK"
flock 9
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$place"

export DEBIAN_FRONTEND=noninteractive
apt_get() {
    apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >/dev/null
}
apt_get update
(cd "$place" && apt_get -o APT::Sandbox::User=root download "$PACKAGE")
libraries=$(dpkg-deb --field "$place"/*.deb Depends | tr ',' '\n' | sed -n 's/^ *\(lib[^ ]*\).*/\1/p')
# shellcheck disable=SC2086  # a list of names
apt_get install --yes --no-install-recommends --no-remove $libraries </dev/null

id "$EXIM_USER" >/dev/null 2>&1 || useradd --system --user-group --no-create-home --shell /usr/sbin/nologin "$EXIM_USER"
mkdir -p "${EXIM%/*}"
dpkg-deb --fsys-tarfile "$place"/*.deb | tar --extract --to-stdout ./usr/sbin/exim4 >"$EXIM.new"
chmod 755 "$EXIM.new"
mv "$EXIM.new" "$EXIM"
