"""scarcity: who makes room for whom."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.delivery.idle import IdleSessions
from engine.delivery.scarcity import YIELD_AFTER_MESSAGES, YIELD_AFTER_S, YIELD_AGAIN_S, Scarcity
from engine.policy.model import Destination
from engine.queue.path import Cap, Path, PathLimits, SiteDemand
from tests.fakes.delivery_rig import make_policies
from tests.fakes.virtual_loop import run_virtually

NOW = 5000.0


class Quitter:
    """A session that notes what is asked of it."""

    reserved_at = 0.0
    taken_from: Any = None

    def __init__(self, path: Path, site: str, *, messages: int = 0, has_work: bool = True) -> None:
        self.path = path
        self.demand = path.sites[site]
        self.messages = messages
        self.opened_at = NOW
        self.site_queues: list[Any] = [_Queue(has_work)]
        self.heard: list[str] = []

    def wake(self) -> None:
        self.heard.append("wake")

    def quit(self) -> None:
        self.heard.append("quit")


class _Queue:
    def __init__(self, has_work: bool) -> None:
        self.queue = [1] if has_work else []


class Scene:
    def __init__(self) -> None:
        self.idle = IdleSessions()
        self.kicked: list[Path] = []
        self.scarcity = Scarcity(asyncio.get_running_loop(), self.idle, self.kicked.append)


def make_path(*sites: str, caps: tuple[Cap, ...] = ()) -> Path:
    policy = make_policies().effective(Destination("x", "site", "", ""))
    path = Path("v1", "x", "", policy, PathLimits(0.0), caps)
    for site in sites:
        path.sites[site] = SiteDemand(site, lambda: 5)
    return path


def test_a_session_yields_after_a_fair_piece_of_work() -> None:
    async def main() -> None:
        scene, path = Scene(), make_path("a", "b")
        path.sites["a"].sessions = 1
        session = Quitter(path, "a", messages=1)
        scene.scarcity.find_starved(path, NOW)
        assert path.sites["b"].is_starved
        assert not scene.scarcity.should_yield(session, NOW)
        session.messages = YIELD_AFTER_MESSAGES
        assert scene.scarcity.should_yield(session, NOW)

    run_virtually(main())


def test_a_session_yields_after_some_time_or_when_it_has_nothing_to_do() -> None:
    async def main() -> None:
        for session_has_work, seconds in ((True, YIELD_AFTER_S), (False, 0.0)):
            scene, path = Scene(), make_path("a", "b")
            path.sites["a"].sessions = 1
            scene.scarcity.find_starved(path, NOW)
            session = Quitter(path, "a", has_work=session_has_work)
            assert scene.scarcity.should_yield(session, NOW + seconds)

    run_virtually(main())


def test_one_yields_and_the_next_only_if_that_did_not_help() -> None:
    async def main() -> None:
        scene, path = Scene(), make_path("a", "b")
        path.sites["a"].sessions = 2
        scene.scarcity.find_starved(path, NOW)
        first, second = (Quitter(path, "a", messages=50) for _ in range(2))
        assert scene.scarcity.should_yield(first, NOW)
        assert not scene.scarcity.should_yield(second, NOW)
        assert scene.scarcity.should_yield(second, NOW + YIELD_AGAIN_S)

    run_virtually(main())


def test_nobody_yields_to_a_site_that_is_served_or_backs_off() -> None:
    async def main() -> None:
        for change in ({"sessions": 1}, {"opening": 1}, {"retry_at": NOW + 1.0}, {"waiting": lambda: 0}):
            scene, path = Scene(), make_path("a", "b")
            path.sites["a"].sessions = 1
            scene.scarcity.find_starved(path, NOW)
            for name, value in change.items():
                setattr(path.sites["b"], name, value)
            assert not scene.scarcity.should_yield(Quitter(path, "a", messages=50), NOW)
            assert not path.sites["b"].is_starved

    run_virtually(main())


def test_the_site_that_was_not_served_for_longest_comes_next() -> None:
    async def main() -> None:
        scene, path = Scene(), make_path("a", "b", "c")
        path.sites["a"].sessions = 1
        path.sites["b"].served_at, path.sites["c"].served_at = 20.0, 10.0
        scene.scarcity.find_starved(path, NOW)
        scene.scarcity.find_starved(path, NOW)
        assert [demand.site for demand in path.sites.values() if demand.is_starved] == ["c"]

    run_virtually(main())


def test_idle_sessions_of_other_sites_are_told_at_once() -> None:
    async def main() -> None:
        scene, path = Scene(), make_path("a", "b")
        path.sites["a"].sessions = 1
        session = Quitter(path, "a", has_work=False)
        scene.idle.add(session)
        scene.scarcity.find_starved(path, NOW)
        assert session.heard == ["wake"]

    run_virtually(main())


def test_who_waits_longest_for_a_cap_is_asked_first() -> None:
    async def main() -> None:
        scene, cap = Scene(), Cap("max_connections_per_shard", 1)
        cap.in_use = 1
        paths = [make_path("a", caps=(cap,)) for _ in range(3)]
        for path in (paths[1], paths[0]):
            scene.scarcity.wait_for_cap(path)
        cap.in_use = 0
        scene.scarcity.slot_is_free(paths[2])
        await asyncio.sleep(0)
        assert scene.kicked == [paths[1], paths[0], paths[2]]

    run_virtually(main())


def test_a_path_whose_cap_is_still_spent_keeps_its_place() -> None:
    async def main() -> None:
        scene, spent, free = Scene(), Cap("one", 1), Cap("two", 1)
        spent.in_use = 1
        first, second = make_path("a", caps=(spent,)), make_path("a", caps=(free,))
        scene.scarcity.wait_for_cap(first)
        scene.scarcity.wait_for_cap(second)
        scene.scarcity.slot_is_free(second)
        await asyncio.sleep(0)
        assert scene.kicked == [second, second]
        spent.in_use = 0
        scene.scarcity.slot_is_free(second)
        await asyncio.sleep(0)
        assert scene.kicked == [second, second, first, second]

    run_virtually(main())


def test_one_idle_session_ends_for_a_path_that_a_cap_refused() -> None:
    async def main() -> None:
        scene, cap = Scene(), Cap("max_connections_per_shard", 2)
        cap.in_use = 2
        busy = make_path("a", caps=(cap,))
        sessions = [Quitter(busy, "a") for _ in range(2)]
        for session in sessions:
            scene.idle.add(session)
        scene.scarcity.wait_for_cap(make_path("b", caps=(cap,)))
        scene.scarcity.wait_for_cap(make_path("c", caps=(cap,)))
        assert [session.heard for session in sessions] == [["quit"], []]

    run_virtually(main())


def test_a_session_that_becomes_idle_ends_for_who_waits() -> None:
    async def main() -> None:
        scene, cap = Scene(), Cap("max_connections_per_shard", 1)
        cap.in_use = 1
        scene.scarcity.wait_for_cap(make_path("b", caps=(cap,)))
        session, other = Quitter(make_path("a", caps=(cap,)), "a"), Quitter(make_path("a"), "a")
        scene.scarcity.became_idle(other)
        scene.scarcity.became_idle(session)
        await asyncio.sleep(0)
        assert (session.heard, other.heard) == (["quit"], [])

    run_virtually(main())


def test_a_forgotten_path_is_asked_no_more() -> None:
    async def main() -> None:
        scene, cap = Scene(), Cap("max_connections_per_shard", 1)
        path = make_path("a", "b", caps=(cap,))
        path.sites["a"].sessions = 1
        scene.scarcity.wait_for_cap(path)
        scene.scarcity.find_starved(path, NOW)
        scene.scarcity.forget(path)
        scene.scarcity.slot_is_free(make_path("c"))
        await asyncio.sleep(0)
        assert path not in scene.kicked
        assert not path.sites["b"].is_starved

    run_virtually(main())
