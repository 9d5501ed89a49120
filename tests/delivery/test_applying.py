"""applying: what is in force reaches paths that there are, and those made later."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from engine.delivery.applying import Applying
from engine.delivery.paths import PathTable
from engine.policy.model import Destination
from engine.queue.path import Path
from engine.queue.reactions import Reach, Reaction, Reactions, Strength, Terms
from tests.fakes.delivery_rig import make_policies, make_vmta

X = Destination("x", "site", "", "")


class Sessions:
    def __init__(self) -> None:
        self.log: list[Any] = []

    def trim(self) -> None:
        self.log.append("trim")

    def stop_opening(self, paths: Collection[Path]) -> None:
        self.log.append(("stop opening", len(paths)))

    def leave_host(self, host: str) -> None:
        self.log.append(("leave", host))


class Around:
    def __init__(self) -> None:
        self.paths = PathTable(make_policies("[default]\nmax_connections = 8"), (), lambda: 0.0)
        self.paths.own([make_vmta("v1"), make_vmta("v2")], 0.0)
        self.sessions = Sessions()
        self.kicked: list[Path] = []
        self.applying = Applying(self.paths, self.sessions, self.kicked.append)
        self.paths.on_new = lambda path, destination: self.applying.path_made(path, destination, 0.0)
        self.reactions = Reactions()

    def begin(self, does: str, reach: Reach, name: str = "r", step_after: int = 0) -> Reaction:
        terms = Terms(100.0, step_after=step_after)
        found = self.reactions.begin(
            name, does, reach, terms, "421 x", 0.0, strength=lambda: Strength(connections=4)
        )
        assert found is not None
        self.applying.apply(found, 0.0)
        return found


def test_a_path_made_later_knows_what_is_in_force() -> None:
    it = Around()
    it.begin("hold", Reach("path", "v1", "x"), "a")
    it.begin("slow", Reach("path", "v1", "x"), "b", step_after=5)
    path, other = it.paths.path("v1", X, ""), it.paths.path("v2", X, "")
    hold = path.hold_in_force(0.0)
    assert hold is not None
    assert hold.reason == "rule a: 421 x"
    assert (path.max_connections, path.connections_why, path.heeds_successes) == (4, "rule b", True)
    assert (other.max_connections, other.hold_in_force(0.0)) == (8, None)


def test_the_end_takes_everything_back_and_asks_the_path_anew() -> None:
    it = Around()
    path = it.paths.path("v1", X, "")
    found = [
        it.begin("hold", Reach("path", "v1", "x"), "a"),
        it.begin("slow", Reach("path", "v1", "x"), "b", step_after=5),
        it.begin("hold", Reach("customer", "v1", "x", customer="acme"), "c"),
    ]
    assert path.is_stopped("acme", 0.0)
    it.kicked.clear()
    for reaction in found:
        it.applying.undo(reaction, 0.0)
    assert (path.holds, path.ceilings, path.held_customers, path.heeds_successes) == ({}, (), None, False)
    assert it.kicked == [path] * 3


def test_one_rules_end_leaves_another_rules_hold_of_the_same_customer() -> None:
    it = Around()
    path = it.paths.path("v1", X, "")
    reach = Reach("customer", "v1", "x", customer="acme")
    first, _ = it.begin("hold", reach, "a"), it.begin("hold", reach, "b")
    it.applying.undo(first, 0.0)
    assert path.is_stopped("acme", 0.0)


def test_holds_stop_what_is_being_opened_and_slow_trims_what_is_open() -> None:
    it = Around()
    it.paths.path("v1", X, "")
    it.begin("hold", Reach("vmta", "v1"), "a")
    it.begin("slow", Reach("path", "v1", "x"), "b")
    it.begin("skip_mx", Reach("host", host="mx"), "c")
    assert it.sessions.log == [("stop opening", 1), "trim", ("leave", "mx")]
    assert it.applying.hosts == {("skip_mx", "mx"): 100.0}


def test_what_bounces_is_found_by_destination_and_customer() -> None:
    it = Around()
    told: list[Reaction] = []
    it.applying.on_waiting = told.append
    found = it.begin("bounce", Reach("waiting", destination="x", customer="acme"))
    assert it.applying.bounces("x", "acme") is found
    assert it.applying.bounces("x", "beta") is None
    it.applying.undo(found, 0.0)
    assert (it.applying.has_bounces, told) == (False, [found, found])


def test_vmtas_that_moved_leave_nothing() -> None:
    it = Around()
    it.begin("hold", Reach("path", "v1", "x"))
    it.applying.forget(["v1"])
    assert it.paths.path("v1", X, "").holds == {}
