"""step: what is on record when the process dies."""

from __future__ import annotations

from pathlib import Path

from engine.shard.step import StepRecord

KEY = bytes(range(1, 15))


def test_the_delivery_that_is_worked_on_can_be_read_by_others(tmp_path: Path) -> None:
    step = StepRecord(tmp_path / "step")
    step.begin(KEY)
    assert (tmp_path / "step").read_bytes() == KEY


def test_nothing_is_on_record_between_two_steps(tmp_path: Path) -> None:
    step = StepRecord(tmp_path / "step")
    step.begin(KEY)
    step.end()
    assert (tmp_path / "step").read_bytes() == bytes(14)


def test_a_new_process_has_done_nothing_yet(tmp_path: Path) -> None:
    StepRecord(tmp_path / "step").begin(KEY)
    StepRecord(tmp_path / "step")
    assert (tmp_path / "step").read_bytes() == bytes(14)


def test_the_file_is_whole_and_closed_to_others(tmp_path: Path) -> None:
    StepRecord(tmp_path / "step")
    status = (tmp_path / "step").stat()
    assert (status.st_size, status.st_mode & 0o777) == (14, 0o600)
    assert status.st_blocks > 0  # not a hole, which a full disk would turn into SIGBUS
