from __future__ import annotations

import pytest

from engine.core.errors import ConfigError
from engine.settings.model import PROHIBITED_NETWORKS, DkimKey, Route
from engine.settings.parse import parse_settings

SMALLEST = """\
[engine]
hostname = "mta1.example.net"
data_dir = "/var/lib/mailrail"
"""

# The example of the design, as an operator would copy it.
EXAMPLE = (
    SMALLEST
    + """\
shards = 0
policies = ["/etc/mailrail/policies"]

[[listener]]
protocol = "smtp"
listen = "127.0.0.1:2525"
allow = ["127.0.0.0/8"]
customer = "acme"

[[listener]]
protocol = "spool"
path = "/var/spool/mailrail"
customer = "acme"

[[listener]]
protocol = "socket"
path = "/run/mailrail/inject.sock"
trusted = true

[admin]
listen = "127.0.0.1:8025"

[[vmta]]
name = "acme-1"
source = ["203.0.113.10", "2001:db8::10"]
hostname = "mail1.acme.example"

[[pool]]
name = "acme"
members = { "acme-1" = 1 }

[[customer]]
name = "acme"
pool = "acme"
senders = ["*@acme.example"]

[routes]
"*" = "127.0.0.1:2526"
"""
)


def test_example_of_the_design_is_read() -> None:
    settings = parse_settings("mailrail.toml", EXAMPLE)
    assert settings.engine.hostname == "mta1.example.net"
    assert settings.engine.policies == ("/etc/mailrail/policies",)
    smtp, spool, socket = settings.listeners
    assert (smtp.protocol, smtp.address, smtp.port, smtp.customer) == ("smtp", "127.0.0.1", 2525, "acme")
    assert (spool.path, spool.trusted) == ("/var/spool/mailrail", False)
    assert (socket.path, socket.trusted, socket.customer) == ("/run/mailrail/inject.sock", True, "")
    assert (settings.admin.address, settings.admin.port, settings.admin.path) == ("127.0.0.1", 8025, "")
    assert settings.vmtas["acme-1"].v4 == "203.0.113.10"
    assert settings.vmtas["acme-1"].v6 == "2001:db8::10"
    assert settings.pools["acme"].members == {"acme-1": 1}
    assert settings.customers["acme"].senders == ("*@acme.example",)
    assert settings.routes == {"*": Route(hosts=("127.0.0.1:2526",))}


def test_what_is_not_written_is_filled_in() -> None:
    settings = parse_settings("mailrail.toml", SMALLEST)
    assert settings.engine.postmaster == "postmaster@mta1.example.net"
    assert settings.engine.event_log_dir == "/var/lib/mailrail/events"
    assert settings.engine.durability == "sync"
    assert settings.engine.prohibited_networks == PROHIBITED_NETWORKS
    assert settings.admin.path == "/var/lib/mailrail/admin.sock"
    assert settings.listeners == ()


def test_listener_is_named_after_where_it_listens() -> None:
    names = [listener.name for listener in parse_settings("m", EXAMPLE).listeners]
    assert names == ["smtp:127.0.0.1:2525", "spool:/var/spool/mailrail", "socket:/run/mailrail/inject.sock"]


def test_units_of_every_kind_are_understood() -> None:
    text = SMALLEST + 'grace = "1m"\nmap_size = "1GiB"\nwindow_size = "10MB"\nevent_log_age = "1h"'
    engine = parse_settings("m", text).engine
    assert (engine.grace_s, engine.map_size_bytes, engine.window_size_bytes) == (60.0, 1 << 30, 10**7)
    assert engine.event_log_age_s == 3600.0


def test_admin_listens_on_a_unix_socket_where_a_path_is_given() -> None:
    admin = parse_settings("m", SMALLEST + '[admin]\nlisten = "/run/mailrail/admin.sock"').admin
    assert (admin.path, admin.address) == ("/run/mailrail/admin.sock", "")


def test_routes_take_lists_ipv6_and_a_default_port() -> None:
    text = SMALLEST + (
        '[routes]\n"*.Example" = ["[2001:DB8::1]:2525", "Relay.example.net"]\n"exact.test" = "192.0.2.1"'
    )
    assert parse_settings("m", text).routes == {
        "*.example": Route(hosts=("[2001:db8::1]:2525", "relay.example.net:25")),
        "exact.test": Route(hosts=("192.0.2.1:25",)),
    }


def test_dkim_keys_belong_to_their_customer() -> None:
    keys = '[[customer.dkim]]\ndomain = "Acme.example"\nselector = "s1"\nkey = "/etc/k.pem"\n'
    text = EXAMPLE.replace("[routes]", keys + "[routes]")
    assert parse_settings("m", text).customers["acme"].dkim == (
        DkimKey(domain="acme.example", selector="s1", key="/etc/k.pem"),
    )


def test_socket_permissions_are_octal() -> None:
    text = EXAMPLE.replace("trusted = true", 'trusted = true\nmode = "0600"')
    assert parse_settings("m", text).listeners[2].mode == 0o600


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        ("[routes]", "[rout]", 40, "top level: unknown key 'rout'; did you mean 'routes'?"),
        ("shards = 0", "shard = 0", 4, "[engine]: unknown key 'shard'; did you mean 'shards'?"),
        (
            "shards = 0",
            "shards = 257",
            4,
            "[engine]: key shards: expected a whole number from 0 to 256, got 257",
        ),
        (
            'protocol = "spool"',
            'protocol = "submissoin"',
            14,
            (
                "[[listener]] number 2: key protocol: "
                'expected one of "smtp", "submission", "submissions", "socket", "spool" '
                "(did you mean 'submission'?), got 'submissoin'"
            ),
        ),
        (
            'allow = ["127.0.0.0/8"]',
            'allow = ["127.0.0.1/8"]',
            10,
            (
                "[[listener]] number 1: key allow: "
                "expected a network such as \"192.0.2.0/24\" without host bits, got '127.0.0.1/8'"
            ),
        ),
        (
            '"203.0.113.10", "2001:db8::10"',
            '"203.0.113.10", "203.0.113.11"',
            28,
            (
                "[[vmta]] number 1: key source: "
                "expected at most one IPv4 and one IPv6 address, got ['203.0.113.10', '203.0.113.11']"
            ),
        ),
        (
            '"203.0.113.10", "2001:db8::10"',
            '"203.0.113.10", "ff02::1"',
            28,
            (
                "[[vmta]] number 1: key source: "
                "expected an address of one host: not unspecified, multicast or broadcast, got 'ff02::1'"
            ),
        ),
        (
            '{ "acme-1" = 1 }',
            "{}",
            33,
            "[[pool]] number 1: key members: expected at least one member, got an empty table",
        ),
        (
            '{ "acme-1" = 1 }',
            '{ "acme-1" = 0 }',
            33,
            (
                "[[pool]] number 1: key members: weight of 'acme-1': "
                "expected a whole number from 1 to 1,000,000, got 0"
            ),
        ),
        (
            '"*@acme.example"',
            '"acme.example"',
            38,
            (
                "[[customer]] number 1: key senders: "
                'expected "*@acme.example", "*@*.acme.example", one address, '
                "or \"*\" for any sender, got 'acme.example'"
            ),
        ),
        (
            '"127.0.0.1:2526"',
            '"127.0.0.1:99999"',
            41,
            ('[routes]: key *: expected "host:port", or "[address]:port" for IPv6, got \'127.0.0.1:99999\''),
        ),
        (
            'listen = "127.0.0.1:2525"\n',
            "",
            7,
            "[[listener]] number 1: a listener of protocol smtp needs listen",
        ),
        (
            'path = "/var/spool/mailrail"',
            'path = "/var/spool/mailrail"\nmode = "0600"',
            16,
            "[[listener]] number 2: key mode has no meaning for protocol spool",
        ),
        ("[[vmta]]", "[vmta.x]", 26, "vmta: expected [[vmta]], one table each, got a table"),
        ('hostname = "mta1.example.net"\n', "", 1, "[engine]: key hostname is missing"),
    ],
)
def test_wrong_setting_is_named_with_its_line(old: str, new: str, line: int, text: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(ConfigError) as caught:
        parse_settings("m", EXAMPLE.replace(old, new))
    assert str(caught.value) == f"m:{line}: {text}"


def test_empty_file_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"^m: \[engine\]: key hostname is missing"):
        parse_settings("m", "")


def test_socket_path_over_the_kernels_limit_is_named() -> None:
    with pytest.raises(ConfigError, match=r"m:20: .*key path: expected a path of at most 107 octets"):
        parse_settings("m", EXAMPLE.replace("/run/mailrail/inject.sock", "/run/" + "x" * 103))


def test_spool_path_may_be_longer_than_a_socket() -> None:
    path = "/" + "x" * 150
    assert parse_settings("m", EXAMPLE.replace("/var/spool/mailrail", path)).listeners[1].path == path


def test_a_route_may_be_a_table() -> None:
    text = SMALLEST + (
        '[routes]\n"*" = { hosts = "smtp.example:587", user = "acme", password = "sesame", tls = "verify" }\n'
        '"local.example" = ["lmtp:unix:/run/dovecot/lmtp", "lmtp:[::1]", "lmtp:mail.example:2003"]'
    )
    routes = parse_settings("m", text).routes
    assert routes["*"] == Route(
        hosts=("smtp.example:587",), user="acme", password="sesame", tls="verify", allow_plaintext_auth=False
    )
    assert routes["local.example"].hosts == (
        "lmtp:unix:/run/dovecot/lmtp",
        "lmtp:[::1]:24",
        "lmtp:mail.example:2003",
    )


HOST = 'hosts = "smtp.example:587"'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            f'{{ {HOST}, user = "u" }}',
            '[routes."a.test"]: key user: expected password or password_file, one of them',
        ),
        (f'{{ {HOST}, password = "sesame" }}', '[routes."a.test"]: key password: expected user as well'),
        (
            f'{{ {HOST}, user = "u", password = "sesame", password_file = "/p" }}',
            '[routes."a.test"]: key password_file: expected password or password_file, one of them',
        ),
        (
            f'{{ {HOST}, user = "u", password = ["sesame"] }}',
            '[routes."a.test"]: key password: expected printable text of 1 to 255 octets',
        ),
        (
            f'{{ {HOST}, user = "u", password = "sesame\\n" }}',
            '[routes."a.test"]: key password: expected printable text of 1 to 255 octets',
        ),
        (
            f'{{ {HOST}, user = "u", pasword = "sesame" }}',
            "[routes.\"a.test\"]: unknown key 'pasword'; did you mean 'password'?",
        ),
        (
            f'{{ {HOST}, user = "u", password = "sesame", tls = "none" }}',
            '[routes."a.test"]: key tls: AUTH in clear needs allow_plaintext_auth = true',
        ),
        ('{ user = "u", password = "sesame" }', '[routes."a.test"]: key hosts is missing'),
        (
            '"lmtp:192.0.2.1:25"',
            "[routes]: key a.test: expected another port: LMTP must not be used on port 25 (RFC 2033), "
            "got 'lmtp:192.0.2.1:25'",
        ),
        ('"lmtp:unix:run/lmtp"', "[routes]: key a.test: expected an absolute path, got 'lmtp:unix:run/lmtp'"),
        (
            f'"lmtp:unix:/{"x" * 107}"',
            "[routes]: key a.test: expected a path of at most 107 octets, "
            "which is all a unix socket may have, "
            f"got 'lmtp:unix:/{'x' * 48}...",
        ),
        (
            '"lmtp:[::1"',
            '[routes]: key a.test: expected "lmtp:host:port" or "lmtp:unix:/path/of/socket", '
            "got 'lmtp:[::1'",
        ),
    ],
)
def test_wrong_route_is_named_without_its_secret(value: str, text: str) -> None:
    """RFC 2033 section 1: LMTP "MUST NOT be used on TCP port 25"; unix(7) bounds the path of a socket."""
    with pytest.raises(ConfigError) as caught:
        parse_settings("m", f'{SMALLEST}[routes]\n"a.test" = {value}')
    assert str(caught.value) == f"m:5: {text}"


def test_routes_to_the_same_hosts_as_the_same_user_agree() -> None:
    """Their domains are one site: sessions are shared, so the credentials are."""
    routes = "\n".join(
        f'"{name}.test" = {{ {HOST}, user = "u", password = "{password}" }}'
        for name, password in (("a", "one"), ("b", "two"))
    )
    with pytest.raises(
        ConfigError, match=r"^m:6: \[routes\]: key b.test: the route of 'a.test' has these"
    ) as caught:
        parse_settings("m", f"{SMALLEST}[routes]\n{routes}")
    assert "two" not in str(caught.value)


VMTA = '[[vmta]]\nname = "v1"\nsource = "203.0.113.10"\nhostname = "mail1.acme.example"\n'


@pytest.mark.parametrize(
    ("written", "shown", "login"),
    [
        ("haproxy:10.0.0.1:5000", "haproxy:10.0.0.1:5000", ("", "")),
        ("haproxy-v1:[2001:DB8::1]:5000", "haproxy-v1:[2001:db8::1]:5000", ("", "")),
        ("socks5://proxy.example:1080", "socks5:proxy.example:1080", ("", "")),
        ("socks5://ann:se%40same@10.0.0.1:1080", "socks5:10.0.0.1:1080", ("ann", "se@same")),
    ],
)
def test_a_vmta_may_leave_through_a_proxy(written: str, shown: str, login: tuple[str, str]) -> None:
    proxy = parse_settings("m", f'{SMALLEST}{VMTA}proxy = "{written}"').vmtas["v1"].proxy
    assert proxy is not None
    assert (str(proxy), repr(proxy)) == (shown, shown)
    assert (proxy.user, proxy.password) == login


@pytest.mark.parametrize(
    "written",
    ["haproxy:10.0.0.1", "http://10.0.0.1:80", "socks5://sesame@10.0.0.1:80", "socks5://u:sesame@:80", ""],
)
def test_wrong_proxy_is_named_without_its_secret(written: str) -> None:
    with pytest.raises(
        ConfigError, match=r'^m:8: \[\[vmta\]\] number 1: key proxy: expected .*"haproxy:'
    ) as caught:
        parse_settings("m", f'{SMALLEST}{VMTA}proxy = "{written}"')
    assert "sesame" not in str(caught.value)
