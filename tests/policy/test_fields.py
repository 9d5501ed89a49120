from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from engine.policy.fields import OF_THE_MESSAGE, POLICY
from engine.policy.model import Policy

DEFAULT = Path(__file__).parents[2] / "policies" / "default.toml"


def test_every_attribute_of_a_policy_has_its_key() -> None:
    assert [field.attribute for field in POLICY.values()] == list(Policy.__struct_fields__)


def test_durations_carry_their_unit() -> None:
    for key, field in POLICY.items():
        assert field.attribute in (key, f"{key}_s")


def test_defaults_are_those_of_the_manual_only() -> None:
    assert Policy.__struct_defaults__ == ()
    assert tomllib.loads(DEFAULT.read_text())["default"].keys() == POLICY.keys()


def test_manual_explains_every_key_right_above_it() -> None:
    lines = DEFAULT.read_text().splitlines()
    for key in POLICY:
        at = next(number for number, line in enumerate(lines) if line.startswith(f"{key} = "))
        assert lines[at - 1].startswith("# "), key


def test_keys_of_the_message_are_keys() -> None:
    assert set(OF_THE_MESSAGE) < POLICY.keys()


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        ("max_connections", 0, 100_001),
        ("max_messages_per_connection", 0, 1_000_001),
        ("max_recipients_per_message", 0, 50_001),
        ("max_message_rate", "0/s", "1/32d"),
        ("max_connection_rate", "5/0s", "1,000,000,001/s"),
        ("message_interval", "-1s", "25h"),
        ("burst", 0, 1_000_001),
        ("adaptive", 1, "yes"),
        ("connect_timeout", "99ms", "61m"),
        ("greeting_timeout", 0, "2h"),
        ("ehlo_timeout", 0, "2h"),
        ("tls_timeout", 0, "2h"),
        ("mail_timeout", 0, "2h"),
        ("rcpt_timeout", 0, "2h"),
        ("data_timeout", 0, "2h"),
        ("content_timeout", 0, "2h"),
        ("final_timeout", 0, "2h"),
        ("rset_timeout", 0, "2h"),
        ("quit_timeout", 0, "2h"),
        ("idle_timeout", -1, "61m"),
        ("retry", [], ["5m"] * 101),
        ("expire_after", 0, "61d"),
        ("bounce_message", 0, "yes"),
        ("delay_notice_after", 1, "61d"),
        ("ready_limit", 0, 1_000_001),
        ("port", 0, 65536),
        ("address_family", "ipv4", 4),
        ("tls", "opportunistic ", True),
        ("tls_min_version", "1.1", 1.3),
        ("tls_certificate", "client.pem", 0),
        ("tls_key", "client.pem", 0),
        ("tls_failure_ttl", "-1s", "31d"),
        ("outstanding", 0, 101),
    ],
)
def test_values_out_of_range_are_refused(key: str, low: object, high: object) -> None:
    for value in (low, high, None, {}):
        with pytest.raises(ValueError, match="expected"):
            POLICY[key].parse(value)


def test_range_of_every_key_is_tested() -> None:
    (mark,) = test_values_out_of_range_are_refused.pytestmark  # type: ignore[attr-defined]
    assert [case[0] for case in mark.args[1]] == list(POLICY)
