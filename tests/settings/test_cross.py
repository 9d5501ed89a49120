from __future__ import annotations

import pytest

from engine.core.errors import ConfigError
from engine.settings.parse import parse_settings

TEXT = """\
[engine]
hostname = "mta1.example.net"
data_dir = "/var/lib/mailrail"
[admin]
listen = "127.0.0.1:8025"
[[listener]]
protocol = "smtp"
listen = "127.0.0.1:2525"
customer = "acme"
[[listener]]
protocol = "socket"
path = "/run/a.sock"
trusted = true
[[vmta]]
name = "acme-1"
source = "203.0.113.10"
hostname = "mail1.acme.example"
[[vmta]]
name = "acme-2"
source = "203.0.113.10"
hostname = "mail2.acme.example"
[[pool]]
name = "acme"
members = { acme-1 = 1, acme-2 = 3 }
[[customer]]
name = "acme"
pool = "acme"
senders = ["*"]
[[customer.dkim]]
domain = "acme.example"
selector = "s1"
key = "/k1"
[[customer.dkim]]
domain = "acme.example"
selector = "s2"
key = "/k2"
"""


def test_vmtas_may_share_a_source_address() -> None:
    settings = parse_settings("m", TEXT)
    assert [vmta.v4 for vmta in settings.vmtas.values()] == ["203.0.113.10", "203.0.113.10"]


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        (
            "acme-2 = 3",
            "acme-3 = 3",
            24,
            ("[[pool]] number 1, members: key acme-3: there is no vmta 'acme-3'; did you mean 'acme-2'?"),
        ),
        (
            'pool = "acme"',
            'pool = "acne"',
            27,
            "[[customer]] number 1: key pool: there is no pool 'acne'; did you mean 'acme'?",
        ),
        (
            'customer = "acme"',
            'customer = "acne"',
            9,
            ("[[listener]] number 1: key customer: there is no customer 'acne'; did you mean 'acme'?"),
        ),
        (
            'customer = "acme"\n',
            "",
            6,
            ("[[listener]] number 1: expected customer (whose mail that is) or trusted = true, and not both"),
        ),
        (
            "trusted = true",
            'trusted = true\ncustomer = "acme"',
            10,
            ("[[listener]] number 2: expected customer (whose mail that is) or trusted = true, and not both"),
        ),
        (
            'name = "acme-2"',
            'name = "acme-1"',
            19,
            "[[vmta]] number 2: key name: there is a vmta 'acme-1' already",
        ),
        (
            'selector = "s2"',
            'selector = "s1"',
            35,
            ("[[customer.dkim]] number 2: key selector: acme.example has a key of selector 's1' already"),
        ),
        (
            'protocol = "socket"\npath = "/run/a.sock"',
            'protocol = "smtp"\nlisten = "127.0.0.1:2525"',
            12,
            ("[[listener]] number 2: key listen: 127.0.0.1:2525 is taken by [[listener]] number 1"),
        ),
        (
            'customer = "acme"\n[[listener]]',
            'customer = "acme"\nname = "in"\n[[listener]]\nname = "in"',
            12,
            "[[listener]] number 2: key name: there is a listener 'in' already",
        ),
        (
            '"127.0.0.1:8025"',
            '"127.0.0.1:2525"',
            5,
            "[admin]: key listen: 127.0.0.1:2525 is taken by [[listener]] number 1",
        ),
        (
            '"127.0.0.1:8025"',
            '"/run/a.sock"',
            5,
            "[admin]: key listen: /run/a.sock is taken by [[listener]] number 2",
        ),
        (
            'protocol = "socket"\npath = "/run/a.sock"',
            'protocol = "smtp"\nlisten = "0.0.0.0:2525"',
            12,
            "[[listener]] number 2: key listen: 0.0.0.0:2525 overlaps 127.0.0.1:2525"
            " of [[listener]] number 1",
        ),
        (
            '"127.0.0.1:8025"',
            '"0.0.0.0:2525"',
            5,
            "[admin]: key listen: 0.0.0.0:2525 overlaps 127.0.0.1:2525 of [[listener]] number 1",
        ),
        (
            'protocol = "socket"\npath = "/run/a.sock"',
            'protocol = "spool"\npath = "/var/lib/mailrail/shard-12/spool"',
            12,
            "[[listener]] number 2: key path: /var/lib/mailrail/shard-12 holds the store of a shard:"
            " expected another directory",
        ),
        (
            'protocol = "socket"\npath = "/run/a.sock"',
            'protocol = "spool"\npath = "/var/lib/x/../mailrail//shard-0"',
            12,
            "[[listener]] number 2: key path: /var/lib/mailrail/shard-0 holds the store of a shard:"
            " expected another directory",
        ),
        (
            'protocol = "socket"\npath = "/run/a.sock"',
            'protocol = "spool"\npath = "/s"\ntrusted = true\n[[listener]]\nprotocol = "socket"\n'
            'path = "/s/new/a.sock"',
            16,
            "[[listener]] number 3: key path: /s/new belongs to the spool of [[listener]] number 2:"
            " expected another place",
        ),
        (
            'protocol = "socket"\npath = "/run/a.sock"',
            'protocol = "spool"\npath = "/s/claimed"\ntrusted = true\n[[listener]]\nprotocol = "spool"\n'
            'path = "/s/"',
            12,
            "[[listener]] number 2: key path: /s/claimed belongs to the spool of [[listener]] number 3:"
            " expected another place",
        ),
        (
            'protocol = "socket"\npath = "/run/a.sock"',
            'protocol = "spool"\npath = "/s"\ntrusted = true\n[[listener]]\nprotocol = "spool"\n'
            'path = "/t/../s"',
            16,
            "[[listener]] number 3: key path: /s belongs to the spool of [[listener]] number 2:"
            " expected another place",
        ),
        (
            'data_dir = "/var/lib/mailrail"',
            f'data_dir = "/{"x" * 100}"',
            3,
            ("[engine]: key data_dir: expected a path of at most 88 octets: sockets live below it"),
        ),
        (
            'data_dir = "/var/lib/mailrail"',
            'data_dir = "/x"\ndns_min_ttl = "2h"\ndns_max_ttl = "1h"',
            4,
            "[engine]: key dns_min_ttl: expected no more than dns_max_ttl",
        ),
    ],
)
def test_disagreement_is_named_where_it_stands(old: str, new: str, line: int, text: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        parse_settings("m", TEXT.replace(old, new))
    assert str(caught.value) == f"m:{line}: {text}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("127.0.0.1:8025", "0.0.0.0:8025"),
        ("127.0.0.1:8025", "[::]:2525"),
        ('protocol = "socket"\npath = "/run/a.sock"', 'protocol = "smtp"\nlisten = "127.0.0.2:2525"'),
        (
            'protocol = "socket"\npath = "/run/a.sock"',
            'protocol = "spool"\npath = "/var/lib/mailrail/shard-spool"',
        ),
        (
            'protocol = "socket"\npath = "/run/a.sock"',
            'protocol = "spool"\npath = "/s"\ntrusted = true\n[[listener]]\nprotocol = "spool"\n'
            'path = "/s/acme"',
        ),
    ],
)
def test_what_only_looks_alike_may_stand_together(old: str, new: str) -> None:
    assert old in TEXT
    parse_settings("m", TEXT.replace(old, new))


def test_tls_reports_are_from_an_address_that_a_customer_may_use() -> None:
    text = TEXT.replace('senders = ["*"]', 'senders = ["*@acme.example"]')
    head = 'data_dir = "/var/lib/mailrail"\n'
    good = text.replace(head, head + 'tls_report_from = "tls@acme.example"\n')
    settings = parse_settings("m", good)
    sender = settings.sender_of(settings.engine.tls_report_from)
    assert sender is not None
    assert sender.name == "acme"
    with pytest.raises(
        ConfigError, match=r"m:4: \[engine\]: key tls_report_from: no customer has 'tls@b.example'"
    ):
        parse_settings("m", good.replace("tls@acme.example", "tls@b.example"))
