"""Counting deaths by delivery."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from engine.supervisor.poison import SUSPICION_S, PoisonRecord, take_step

KEY, OTHER = bytes(range(14)), bytes(range(1, 15))


class Deaths:
    """A step file and a record over it."""

    def __init__(self, directory: Path) -> None:
        self.step = directory / "step"
        self.record = PoisonRecord(directory / "poison.json")
        self.record.load()

    def die(self, key: bytes, returncode: int, now: float = 0.0) -> list[bytes]:
        self.step.write_bytes(key)
        return self.record.note_death(self.step, returncode, now)


@pytest.fixture
def deaths(tmp_path: Path) -> Deaths:
    return Deaths(tmp_path)


def test_two_deaths_of_its_own_make_a_delivery_poison(deaths: Deaths) -> None:
    assert deaths.die(KEY, -signal.SIGSEGV) == []
    assert deaths.record.keys == []
    assert deaths.die(KEY, 70) == [KEY]
    assert deaths.record.keys == [KEY]


def test_poison_is_announced_once(deaths: Deaths) -> None:
    deaths.die(KEY, 70)
    deaths.die(KEY, 70)
    assert deaths.die(KEY, 70) == []
    assert deaths.record.keys == [KEY]


def test_a_death_by_anothers_hand_weighs_half(deaths: Deaths) -> None:
    for _ in range(3):
        assert deaths.die(KEY, -signal.SIGKILL) == []
    assert deaths.die(KEY, -signal.SIGKILL) == [KEY]


def test_deaths_on_different_deliveries_do_not_add_up(deaths: Deaths) -> None:
    deaths.die(KEY, 70)
    deaths.die(OTHER, 70)
    assert deaths.record.keys == []


def test_the_count_survives_the_supervisor(deaths: Deaths, tmp_path: Path) -> None:
    deaths.die(KEY, 70)
    assert Deaths(tmp_path).die(KEY, 70) == [KEY]
    assert Deaths(tmp_path).record.keys == [KEY]


def test_a_step_is_counted_once_even_if_the_next_shard_dies_before_its_first(deaths: Deaths) -> None:
    deaths.die(KEY, 70)
    assert deaths.record.note_death(deaths.step, 70, 1.0) == []
    assert deaths.step.read_bytes() == bytes(14)


def test_no_step_file_and_no_step_are_no_suspect(deaths: Deaths, tmp_path: Path) -> None:
    assert deaths.record.note_death(tmp_path / "none", 70, 0.0) == []
    assert deaths.die(bytes(14), 70) == []
    assert not (tmp_path / "poison.json").exists()


def test_a_single_old_death_is_forgotten_and_poison_is_not(deaths: Deaths) -> None:
    deaths.die(KEY, 70)
    deaths.die(OTHER, 70)
    deaths.die(OTHER, 70)
    assert deaths.die(KEY, 70, SUSPICION_S + 1) == []
    assert deaths.record.keys == [OTHER]


def test_an_operator_can_clear_a_delivery(deaths: Deaths, tmp_path: Path) -> None:
    deaths.die(KEY, 70)
    deaths.die(KEY, 70)
    assert deaths.record.forget(KEY)
    assert not deaths.record.forget(KEY)
    assert Deaths(tmp_path).record.keys == []


def test_a_damaged_record_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "poison.json").write_text("{")
    deaths = Deaths(tmp_path)
    deaths.die(KEY, 70)
    assert deaths.die(KEY, 70) == [KEY]


def test_several_steps_in_one_file_are_all_taken(tmp_path: Path) -> None:
    step = tmp_path / "step"
    step.write_bytes(KEY + bytes(14) + OTHER + b"torn")
    assert take_step(step) == [KEY, OTHER]
    assert step.read_bytes() == bytes(46)


def test_all_of_a_message_is_cleared_by_its_id(deaths: Deaths) -> None:
    for _ in range(2):
        deaths.die(KEY, 70)
    assert deaths.record.forget(KEY[:12])
    assert deaths.record.keys == []
