"""kept_reactions: what is in force outlives a process, moves with its vmta, and does not come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.queue.reactions import Reach, Reaction, Reactions, Terms
from engine.shard.kept_reactions import KeptReactions

UNIX = 1_700_000_000.0


class Shard:
    """One shard's file, and a clock that began when its process did."""

    def __init__(self, data_dir: Path, number: int, booted_at: float = UNIX) -> None:
        (data_dir / f"shard-{number}").mkdir(exist_ok=True)
        self.now = 0.0
        self.booted_at = booted_at
        self.kept = KeptReactions(data_dir, number, lambda: self.now)
        self.kept.open()
        self.reactions = Reactions()
        self.vmtas = {"v1"}

    def hold(self, vmta: str = "v1", for_s: float = 600.0) -> Reaction:
        found = self.reactions.begin(
            "stop", "hold", Reach("path", vmta, "gmail"), Terms(for_s), "421 x", self.now
        )
        assert found is not None
        return found

    @property
    def unix(self) -> float:
        return self.booted_at + self.now

    def write(self) -> None:
        self.kept.write(
            self.reactions.in_force.values(), lambda each: each.reach.vmta in self.vmtas, self.unix
        )

    def read(self) -> dict[str, float]:
        return {each.key: each.until - self.now for each in self.kept.read(self.unix)}


def test_what_is_in_force_goes_on_with_the_time_it_had_left(tmp_path: Path) -> None:
    before = Shard(tmp_path, 0)
    before.hold()
    before.now = 100.0
    before.write()
    after = Shard(tmp_path, 0, booted_at=UNIX + 150.0)
    assert after.read() == {"stop@v1/gmail": pytest.approx(450.0)}
    assert Shard(tmp_path, 0, booted_at=UNIX + 601.0).read() == {}


def test_a_vmta_that_moves_takes_it_along(tmp_path: Path) -> None:
    old, new = Shard(tmp_path, 0), Shard(tmp_path, 1)
    found = old.hold()
    old.write()
    old.vmtas = set()
    del old.reactions.in_force[found.key]
    old.write()
    old.write()
    assert new.read().keys() == {"stop@v1/gmail"}


def test_what_an_operator_ended_does_not_come_back_from_an_older_file(tmp_path: Path) -> None:
    old, new = Shard(tmp_path, 0), Shard(tmp_path, 1)
    found = old.hold()
    old.write()
    old.vmtas = set()
    old.reactions.end(found.key)
    old.now = new.now = 1.0
    old.write()
    (there,) = new.kept.read(new.unix)
    new.reactions.take_over(there)
    new.write()
    new.now = 2.0
    new.reactions.end(there.key)
    new.write()
    assert new.read() == {}
    assert Shard(tmp_path, 0, booted_at=UNIX + 3.0).read() == {}


def test_what_begins_again_after_its_end_is_in_force(tmp_path: Path) -> None:
    shard = Shard(tmp_path, 0)
    shard.reactions.end(shard.hold().key)
    shard.write()
    shard.now = 1.0
    shard.hold()
    shard.write()
    assert shard.read().keys() == {"stop@v1/gmail"}


def test_what_is_over_leaves_the_file(tmp_path: Path) -> None:
    shard = Shard(tmp_path, 0)
    shard.reactions.end(shard.hold(for_s=10.0).key)
    shard.write()
    shard.now = 11.0
    shard.write()
    assert (tmp_path / "shard-0" / "reactions").read_bytes() == b"\x90"


def test_stores_that_were_drained_are_read_too_and_damage_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Shard(tmp_path, 3).hold()
    third = Shard(tmp_path, 3)
    third.hold()
    third.write()
    (tmp_path / "shard-3").rename(tmp_path / "drained-3")
    first = Shard(tmp_path, 0)
    assert first.read().keys() == {"stop@v1/gmail"}
    (tmp_path / "drained-3" / "reactions").write_bytes(b"\xc1 nothing")
    assert first.read() == {}
    assert "kept reactions unreadable" in capfd.readouterr().err


def test_a_full_disk_is_said_and_stops_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shard = Shard(tmp_path, 0)
    (tmp_path / "shard-0").rmdir()
    shard.hold()
    shard.write()
    assert "reactions not kept" in capfd.readouterr().err
