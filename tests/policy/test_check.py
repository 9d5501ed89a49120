from __future__ import annotations

from engine.policy.check import check_policies
from engine.policy.parse import parse_policies
from tests.policy.shipped import DEFAULT, SHIPPED, findings


def test_policies_that_ship_have_no_findings() -> None:
    assert check_policies(parse_policies(SHIPPED)) == []


def test_section_that_says_nothing_is_a_warning() -> None:
    assert findings('[domain."a.example"]') == [
        'f:1: warning: [domain."a.example"]: empty, so it changes nothing'
    ]


def test_findings_are_sorted_by_file_and_line() -> None:
    texts = [("p/default.toml", DEFAULT), ("b", '[domain."a.example"]'), ("a", '\n[domain."b.example"]')]
    assert [str(found.origin) for found in check_policies(parse_policies(texts))] == ["a:2", "b:1"]


def test_burst_over_the_window_is_a_warning() -> None:
    text = '[domain."a.example"]\nmax_message_rate = "10/s"\n[vmta.a1.domain."a.example"]\nburst = 50'
    assert findings(text) == [
        'f:4: warning: [vmta.a1.domain."a.example"]: burst 50 is more than 10/s allows; it counts as 10'
        ' ([domain."a.example"], f:2)'
    ]


def test_retry_after_expiry_is_a_warning_at_the_line_that_the_operator_wrote() -> None:
    (found,) = findings('[default]\n\nexpire_after = "5m"')
    shipped = next(name for name, text in SHIPPED if "[default]" in text)
    start = "f:3: warning: [default]: the first retry comes after expire_after 5m: none ([default], "
    assert found.startswith(f"{start}{shipped}:")
    (found,) = findings('[domain."a.example"]\nretry = ["5d"]')
    assert found.startswith('f:2: warning: [domain."a.example"]: the first retry comes after expire_after 4d')
    (found,) = findings('[domain."a.example"]\nexpire_after = "1h"\nretry = ["2h"]')
    assert found.startswith('f:3: warning: [domain."a.example"]: the first retry')
    assert found.endswith('none ([domain."a.example"], f:2)')
