#!/bin/sh
# Programs that others wrote and our tests talk to. As root: install what is missing, start nothing.
# Without root: say what is missing; the tests that want it are skipped and say so too.
set -eu

PACKAGES="postfix unbound ldnsutils microsocks swaks prometheus opendkim opendkim-tools strace iproute2 util-linux libcap2-bin systemd"
PACKAGES="$PACKAGES haproxy libnet-ssleay-perl"  # the latter is what swaks needs for TLS
SERVICES="postfix unbound unbound-resolvconf microsocks prometheus opendkim haproxy"  # what these packages would start
POLICY=/usr/sbin/policy-rc.d  # invoke-rc.d asks it before a package's script starts anything
LOCK=/run/lock/mailrail-strangers

if ! command -v dpkg-query >/dev/null; then
    echo "not a Debian system: the tests want the programs of: $PACKAGES" >&2
    exit 0
fi

sh "${0%/*}/strangers-exim.sh"

missing() {
    for package in $PACKAGES; do
        status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || echo "$package"
    done
}

wanted=$(missing | tr '\n' ' ')
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "missing, and tests that want them are skipped: $wanted(as root: apt-get install $wanted)" >&2
    exit 0
fi

# Two runs at once would take each other's refusal for the policy to restore.
exec 9>"$LOCK"
flock 9
wanted=$(missing | tr '\n' ' ')
[ -n "$wanted" ] || exit 0

restore() {
    rm -f "$POLICY"
    [ ! -e "$POLICY.mailrail" ] || mv "$POLICY.mailrail" "$POLICY"
}
[ ! -e "$POLICY" ] || [ -e "$POLICY.mailrail" ] || mv "$POLICY" "$POLICY.mailrail"
trap restore EXIT
trap 'exit 1' HUP INT TERM
printf '#!/bin/sh\nexit 101\n' >"$POLICY"
chmod 755 "$POLICY"

export DEBIAN_FRONTEND=noninteractive
apt_get() {
    apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >/dev/null
}
apt_get update
case " $wanted" in
*" postfix "*)
    printf '%s\n' "postfix postfix/main_mailer_type select Local only" \
        "postfix postfix/mailname string localhost" | debconf-set-selections
    ;;
esac
# --no-remove: postfix must not push out a mail system that this machine uses.
# shellcheck disable=SC2086  # a list of names
apt_get install --yes --no-install-recommends --no-remove $wanted </dev/null

# Nor at the next boot: they were installed for their programs.
if command -v systemctl >/dev/null; then
    for package in $wanted; do
        case " $SERVICES " in
        *" $package "*) systemctl disable --quiet "$package" 2>/dev/null || true ;;
        esac
    done
fi
