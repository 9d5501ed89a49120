"""What stands on record of a file while it is taken, after a death."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.inject.suspect import SuspectRecord


def test_nothing_is_suspected_at_first(tmp_path: Path) -> None:
    record = SuspectRecord(tmp_path / ".taking-0")
    assert (record.name, record.deaths, record.is_guilty) == ("", 0, False)


def test_file_that_was_finished_is_not_suspected(tmp_path: Path) -> None:
    record = SuspectRecord(tmp_path / ".taking-0")
    record.begin("m")
    record.end()
    assert SuspectRecord(tmp_path / ".taking-0").name == ""


@pytest.mark.parametrize("name", ["m", "x" * 255, "\udcff\n", "ü" * 127])
def test_second_death_in_a_row_makes_guilty(tmp_path: Path, name: str) -> None:
    SuspectRecord(tmp_path / ".taking-0").begin(name)
    once = SuspectRecord(tmp_path / ".taking-0")
    assert (once.name, once.deaths, once.is_guilty) == (name, 1, False)
    once.begin(name)
    twice = SuspectRecord(tmp_path / ".taking-0")
    assert (twice.name, twice.deaths, twice.is_guilty) == (name, 2, True)


def test_deaths_of_different_files_are_not_added(tmp_path: Path) -> None:
    SuspectRecord(tmp_path / ".taking-0").begin("a")
    SuspectRecord(tmp_path / ".taking-0").begin("b")
    record = SuspectRecord(tmp_path / ".taking-0")
    assert (record.name, record.deaths) == ("b", 1)
