"""build: what the engine of a shard does itself, between the objects that it has made."""

from __future__ import annotations

from engine.shard.build import Engine
from engine.shard.upkeep import QUIET_S
from tests.fakes.delivery_rig import make_vmta


class HalfEngine(Engine):
    """An engine of which nothing was built."""

    def __init__(self) -> None:
        self.shard = 0
        self.quiet_s = 0.5


def test_what_comes_from_an_owner_that_has_not_let_go_is_quiet_at_first() -> None:
    engine = HalfEngine()
    ours = [make_vmta("mine"), make_vmta("new"), make_vmta("moved")]
    before = {"mine": 0, "moved": 1}
    assert engine._quiet_s(ours, {}, ()) == 0.5
    assert engine._quiet_s(ours, before, ()) == QUIET_S
    assert engine._quiet_s(ours, before, {"moved"}) == 0.0
