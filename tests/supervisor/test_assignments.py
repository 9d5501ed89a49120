"""Who owns which vmta, from one configuration to the next."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine.supervisor.assignments import Assignment, deal_vmtas, load_assignment, store_assignment
from tests.fakes.delivery_rig import make_vmta

NOBODY = Assignment({}, 0)


def make_settings(**vmtas: str) -> Any:
    made = {name: make_vmta(name, address) for name, address in vmtas.items()}
    return SimpleNamespace(vmtas=made, pools={"pool": SimpleNamespace(members=dict.fromkeys(made, 1))})


def test_a_vmta_goes_to_the_owner_of_its_address_whatever_its_name() -> None:
    first = deal_vmtas(make_settings(a="192.0.2.1", b="192.0.2.2"), 2, NOBODY)
    assert first.vmtas == {"a": 0, "b": 1}
    swapped = deal_vmtas(make_settings(a="192.0.2.2", b="192.0.2.1"), 2, first)
    assert swapped.vmtas == {"a": 1, "b": 0}
    renamed = deal_vmtas(make_settings(a="192.0.2.2", c="192.0.2.1"), 2, swapped)
    assert renamed.vmtas == {"a": 1, "c": 0}


def test_a_vmta_with_a_new_address_stays() -> None:
    first = deal_vmtas(make_settings(a="192.0.2.1", b="192.0.2.2"), 2, NOBODY)
    assert deal_vmtas(make_settings(a="192.0.2.1", b="192.0.2.9"), 2, first).vmtas == first.vmtas


def test_an_address_that_was_away_for_a_while_has_the_same_owner() -> None:
    first = deal_vmtas(make_settings(a="192.0.2.1", b="192.0.2.2"), 2, NOBODY)
    without = deal_vmtas(make_settings(a="192.0.2.1"), 2, first)
    back = deal_vmtas(make_settings(a="192.0.2.1", c="192.0.2.3", d="192.0.2.2"), 2, without)
    assert back.vmtas["d"] == 1


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    given = Assignment({"a": 1}, 2, {"192.0.2.1": 1}, 1_700_000_000.5)
    store_assignment(tmp_path / "assignment.json", given)
    assert load_assignment(tmp_path / "assignment.json") == given


def test_a_file_that_is_missing_or_unreadable_is_nobodys(tmp_path: Path) -> None:
    assert load_assignment(tmp_path / "assignment.json") == NOBODY
    (tmp_path / "assignment.json").write_text("{")
    assert load_assignment(tmp_path / "assignment.json") == NOBODY
