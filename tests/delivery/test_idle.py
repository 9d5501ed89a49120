"""idle: sessions with nothing to do."""

from __future__ import annotations

from engine.delivery.idle import IdleSessions
from engine.delivery.site_queue import SiteQueue
from engine.queue.path import Path, SiteDemand


class Sleeper:
    """A session that notes when it is woken."""

    path: Path
    site_queues: list[SiteQueue]
    taken_from: SiteQueue
    opened_at = 0.0
    messages = 0
    reserved_at = 0.0

    def __init__(self, demand: SiteDemand) -> None:
        self.demand = demand
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def quit(self) -> None:
        raise AssertionError("nobody asked for that")


def make_demand(waiting: int) -> SiteDemand:
    return SiteDemand("mx.example", lambda: waiting)


def test_as_many_are_woken_as_there_is_work_for() -> None:
    idle, demand = IdleSessions(), make_demand(2)
    sleepers = [Sleeper(demand) for _ in range(3)]
    for sleeper in sleepers:
        idle.add(sleeper)
    idle.wake(demand)
    assert [sleeper.woken for sleeper in sleepers] == [1, 1, 0]


def test_one_is_woken_where_an_opening_session_is_thought_to_take_all() -> None:
    idle, demand = IdleSessions(), make_demand(0)
    sleeper = Sleeper(demand)
    idle.add(sleeper)
    idle.wake(demand)
    assert sleeper.woken == 1


def test_a_session_is_idle_once() -> None:
    idle, demand = IdleSessions(), make_demand(1)
    sleeper = Sleeper(demand)
    idle.add(sleeper)
    idle.add(sleeper)
    assert demand.idle == 1
    idle.remove(sleeper)
    idle.remove(sleeper)
    assert demand.idle == 0
    idle.wake(demand)
    idle.wake_all(demand)
    assert sleeper.woken == 0


def test_sessions_of_so_many_sites_are_looked_at() -> None:
    idle = IdleSessions()
    sleepers = [Sleeper(make_demand(1)) for _ in range(5)]
    for sleeper in sleepers:
        idle.add(sleeper)
    assert list(idle.first_of(3)) == sleepers[:3]


def test_all_of_a_site_can_be_woken() -> None:
    idle, demand = IdleSessions(), make_demand(1)
    sleepers = [Sleeper(demand) for _ in range(3)]
    for sleeper in sleepers:
        idle.add(sleeper)
    idle.wake_all(demand)
    assert [sleeper.woken for sleeper in sleepers] == [1, 1, 1]
