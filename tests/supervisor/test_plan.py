"""Which vmtas must have ended their sessions before a new plan."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from engine.supervisor.plan import Plan, find_moves
from tests.fakes.delivery_rig import make_vmta

X, Y, Z = "192.0.2.1", "192.0.2.2", "192.0.2.3"
V6 = "2001:db8::1"


def make_plan(**vmtas: tuple[int, str] | tuple[int, str, str]) -> Plan:
    """Return a plan of these vmtas: owner and addresses."""
    found = {name: make_vmta(name, *addresses) for name, (_, *addresses) in vmtas.items()}
    model: Any = SimpleNamespace(settings=SimpleNamespace(vmtas=found))
    return Plan(1, None, model, {name: row[0] for name, row in vmtas.items()}, {}, {}, "")  # type: ignore[arg-type]


def test_only_vmtas_that_two_plans_give_to_different_shards_move() -> None:
    old = make_plan(stays=(0, X), moves=(0, Y), goes=(1, Z))
    new = make_plan(stays=(0, X), moves=(1, Y), comes=(0, "192.0.2.9"))
    assert find_moves(old, new) == {"moves": 0}


def test_a_vmta_that_is_renamed_stays_and_one_that_changes_its_address_does_not() -> None:
    old = make_plan(a=(0, X), b=(1, Y))
    assert find_moves(old, make_plan(new=(0, X), b=(1, Y))) == {}
    assert find_moves(old, make_plan(a=(0, Z), b=(1, Y))) == {"a": 0}


def test_vmtas_that_change_places_both_move() -> None:
    old = make_plan(a=(0, X), b=(1, Y))
    assert find_moves(old, make_plan(a=(1, Y), b=(0, X))) == {"a": 0, "b": 1}


def test_with_an_address_that_moves_goes_every_vmta_that_counted_in_it() -> None:
    old = make_plan(a=(0, X), b=(0, X), c=(1, Y))
    assert find_moves(old, make_plan(a=(0, X), b=(1, Y), c=(1, Y))) == {"a": 0, "b": 0}
    assert find_moves(old, make_plan(new=(1, X, V6), c=(1, Y))) == {"a": 0, "b": 0}


def test_addresses_that_count_together_from_now_on_move_even_within_a_shard() -> None:
    old = make_plan(a=(0, X), b=(0, "", V6), c=(0, Y))
    new = make_plan(a=(0, X), b=(0, "", V6), c=(0, Y), bridge=(0, X, V6))
    assert find_moves(old, new) == {"a": 0, "b": 0}
    assert find_moves(new, old) == {"a": 0, "b": 0, "bridge": 0}


def test_one_more_vmta_at_an_address_moves_nobody() -> None:
    old = make_plan(a=(0, X))
    assert find_moves(old, make_plan(a=(0, X), b=(0, X))) == {}


def test_what_nobody_owns_does_not_move() -> None:
    """Between two owners: its sessions have ended."""
    old = make_plan(a=(0, X), b=(1, Y))
    assert find_moves(old.without({"a"}), make_plan(a=(1, X), b=(1, Y))) == {}
