"""lacking: in CI nothing is skipped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.lacking import lack, need_root

TESTS = Path(__file__).parent
OWN = ("lacking.py", "test_lacking.py")


def test_what_is_lacking_is_skipped_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no wings"):
        lack("no wings")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="nothing is skipped: no wings"):
        lack("no wings")


@pytest.mark.parametrize("uid", [0, 1000])
def test_who_is_not_root_lacks_that(uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr("os.geteuid", lambda: uid)
    if uid == 0:
        need_root("fly")
        return
    with pytest.raises(pytest.fail.Exception, match="needs root to fly"):
        need_root("fly")


def test_no_test_skips_by_itself() -> None:
    ways = re.compile(r"pytest\.skip\b|pytest\.importorskip|mark\.skip|unittest\.skip|SkipTest")
    found = [
        f"{path.relative_to(TESTS)}: {line.strip()}"
        for path in TESTS.rglob("*.py")
        if path.name not in OWN
        for line in path.read_text().splitlines()
        if ways.search(line)
    ]
    assert found == []
