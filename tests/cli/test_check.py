from __future__ import annotations

from engine.cli.check import find_problems, format_findings, is_good
from engine.core.errors import Origin
from engine.core.finding import Finding

WARNING = Finding("warning", Origin("a.toml", 3), "nobody uses it")
ERROR = Finding("error", Origin("a.toml", 4), "can't fire")


def test_warnings_fail_only_strictly() -> None:
    assert is_good([WARNING], is_strict=False)
    assert not is_good([WARNING], is_strict=True)
    assert not is_good([WARNING, ERROR], is_strict=False)
    assert is_good([], is_strict=True)


def test_findings_carry_file_and_line() -> None:
    assert format_findings([WARNING], is_strict=False) == {
        "is_good": True,
        "findings": [{"severity": "warning", "file": "a.toml", "line": 3, "text": "nobody uses it"}],
    }


def test_configuration_that_can_not_be_read_is_one_error() -> None:
    (finding,) = find_problems("/nowhere/mailrail.toml")
    assert finding.severity == "error"
    assert finding.origin.file == "/nowhere/mailrail.toml"


def test_good_configuration_has_no_errors(config: str) -> None:
    assert is_good(find_problems(config), is_strict=False)
