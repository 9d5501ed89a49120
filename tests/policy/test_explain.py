from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.policy.explain import Explanation, explain, format_explanation
from engine.policy.fields import POLICY
from engine.policy.model import Destination
from engine.policy.parse import parse_policies

DEFAULT = (Path(__file__).parents[2] / "policies" / "default.toml").read_text()
TEXT = """\
[provider.gmail]
mx = ["*.google.com"]
max_connections = 20
[vmta."acme-1".provider.gmail]
max_message_rate = "50/min"
"""
UNLESS = ", unless the peer is so slow that max_connections does"
GMAIL = Destination("gmail", "provider", "gmail", "")


def explained(text: str, **arguments: object) -> Explanation:
    policies = parse_policies([("default.toml", DEFAULT), ("f.toml", text)])
    return explain(policies, GMAIL, "acme", "acme-1", **arguments)  # type: ignore[arg-type]


def test_every_key_has_its_value_and_line() -> None:
    found = explained(TEXT)
    assert [key.key for key in found.keys] == list(POLICY)
    keys = {key.key: key for key in found.keys}
    rate = keys["max_message_rate"]
    assert (rate.in_force.value, rate.in_force.layer) == ('"50/min"', "[vmta.acme-1.provider.gmail]")
    assert (rate.in_force.file, rate.in_force.line) == ("f.toml", 5)
    assert [(value.value, value.layer) for value in rate.overridden] == [('"100/s"', "[default]")]
    assert keys["port"].overridden == []
    assert keys["retry"].in_force.value == '["5m", "15m", "30m", "1h", "2h", "4h"]'
    assert keys["bounce_message"].in_force.value == "true"


@pytest.mark.parametrize(
    ("settings", "arguments", "binding"),
    [
        ('max_message_rate = "50/min"', {}, f"max_message_rate, 50/min{UNLESS}"),
        ('max_message_rate = "50/min"', {"transaction_s": 0.1}, "max_message_rate, 50/min"),
        ("max_connections = 2", {"transaction_s": 1.0}, "max_connections, 2/s"),
        (
            "max_connections = 20",
            {"transaction_s": 1.0, "caps": {"cap of the vmta": 1, "none": 0}},
            "cap of the vmta, 1/s",
        ),
        ('message_interval = "30s"', {"transaction_s": 0.1}, "message_interval, 2/min"),
        (
            'max_connection_rate = "1/h"\nmax_messages_per_connection = 1',
            {"transaction_s": 1.0},
            "max_connection_rate, 1/h",
        ),
        ('max_message_rate = "2/3d"', {"transaction_s": 1.0}, "max_message_rate, 0.6667/d"),
        (
            'max_message_rate = "unlimited"\nmax_connection_rate = "unlimited"',
            {},
            "max_connections; nothing else limits the path",
        ),
    ],
)
def test_lowest_ceiling_binds(settings: str, arguments: dict[str, object], binding: str) -> None:
    text = f'[provider.gmail]\nmx = ["*.google.com"]\n{settings}'
    assert explained(text, **arguments).binding == binding


def test_text_shows_value_origin_and_what_was_overridden() -> None:
    text = format_explanation(explained(TEXT))
    assert text.startswith("destination gmail (provider), customer acme, vmta acme-1\n")
    assert '= "50/min"    [vmta.acme-1.provider.gmail] f.toml:5\n' in text
    assert 'over "100/s"    [default] default.toml:' in text
    assert text.endswith(
        "binds: max_message_rate, 50/min, unless the peer is so slow that max_connections does"
    )


def test_explanation_is_plain_json() -> None:
    found = explained(TEXT)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Explanation) == found
