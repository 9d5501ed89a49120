"""Which vmtas change owner."""

from __future__ import annotations

from engine.supervisor.plan import find_moves


def test_only_vmtas_that_two_plans_give_to_different_shards_move() -> None:
    old = {"stays": 0, "moves": 0, "goes": 1}
    new = {"stays": 0, "moves": 1, "comes": 0}
    assert find_moves(old, new) == {"moves": (0, 1)}
