from __future__ import annotations

import pytest

from engine.settings.check import check_settings
from engine.settings.parse import parse_settings

ENGINE = '[engine]\nhostname = "mta1.example.net"\ndata_dir = "/var/lib/mailrail"\n'
REST = """\
[[vmta]]
name = "acme-1"
source = "203.0.113.10"
hostname = "mail1.acme.example"
[[vmta]]
name = "spare"
source = "203.0.113.11"
hostname = "mail2.acme.example"
[[pool]]
name = "acme"
members = { acme-1 = 1 }
[[pool]]
name = "lost"
members = { acme-1 = 1 }
[[customer]]
name = "acme"
pool = "acme"
senders = ["*"]
[[customer]]
name = "mute"
pool = "acme"
senders = ["*"]
"""
LISTENER = '[[listener]]\nprotocol = "smtp"\nlisten = "127.0.0.1:2525"\n'


def findings(text: str) -> list[str]:
    return [str(finding) for finding in check_settings("m", text, parse_settings("m", text))]


def test_what_nothing_uses_is_found() -> None:
    assert findings(ENGINE + REST + LISTENER + 'customer = "acme"') == [
        "m:8: warning: vmta 'spare' is in no pool: nothing uses it",
        "m:15: warning: pool 'lost' is no customer's, and no trusted listener could name it",
        "m:22: warning: customer 'mute' has no listener, and none is trusted to name it",
    ]


def test_trusted_listener_may_name_any_customer_and_pool() -> None:
    assert findings(ENGINE + REST + LISTENER + "trusted = true") == [
        "m:8: warning: vmta 'spare' is in no pool: nothing uses it"
    ]


def test_configuration_that_nothing_can_feed_is_found() -> None:
    assert findings(ENGINE) == ["m: warning: there is no [[listener]]: no mail can come in"]


@pytest.mark.parametrize(
    ("listen", "is_open"),
    [
        ("127.0.0.1:8025", False),
        ("127.9.9.9:8025", False),
        ("[::1]:8025", False),
        ("/run/admin.sock", False),
        ("192.0.2.1:8025", True),
        ("0.0.0.0:8025", True),
        ("[::]:8025", True),
    ],
)
def test_an_admin_api_that_the_network_can_reach_is_warned_of(listen: str, is_open: bool) -> None:
    text = ENGINE + f'[admin]\nlisten = "{listen}"\n' + LISTENER + "trusted = true\n"
    found = findings(text)
    assert [finding.split(": ")[:3] for finding in found] == (
        [["m:5", "warning", "[admin]"]] if is_open else []
    )
