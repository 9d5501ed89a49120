"""obstacles: only what stops every vmta of a ready queue is named as a reason."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from engine.delivery.obstacles import held_reason, obstacle
from engine.delivery.site_queue import SiteQueue
from engine.queue.path import Cap, Path
from tests.fakes.delivery_rig import Rig, make_delivery
from tests.fakes.virtual_loop import run_virtually

TWO = {"v1": 1, "v2": 1}


def run(scenario: Callable[[Rig, SiteQueue], None], policy: str = "", caps: tuple[Cap, ...] = ()) -> None:
    """Run with a ready queue of two paths in which nothing waits any more."""

    async def main() -> None:
        rig = Rig(policy, vmtas=TWO, caps=caps)
        rig.accept(make_delivery())
        await rig.run(1.0)
        (site_queue,) = rig.sites
        rig.dispatcher.widening.widen(site_queue)
        assert len(site_queue.paths) == 2
        await rig.run(100.0)
        scenario(rig, site_queue)

    run_virtually(main())


def reasons(rig: Rig, site_queue: SiteQueue) -> tuple[str, str]:
    now = rig.loop.time()
    return held_reason(site_queue, now), obstacle(site_queue, now)


def hold(path: Path, now: float) -> None:
    path.hold("operator", "paused", math.inf)


def fail(path: Path, now: float) -> None:
    (demand,) = path.sites.values()
    demand.fail(now, "refused")


def spend(path: Path, now: float) -> None:
    path.redeem_message(now, path.reserve_message(now))


def connect(path: Path, now: float) -> None:
    assert path.try_connect(now)


BACK_OFF = "back-off after 1 failures for 1.0 s: refused"
RATE = '[default]\nmax_message_rate = "1/min"'
ONE = "[default]\nmax_connections = 1"


@pytest.mark.parametrize(
    ("stop", "policy", "held", "why"),
    [
        (hold, "", "paused", "held: paused"),
        (fail, "", BACK_OFF, BACK_OFF),
        (spend, RATE, "", "message rate spent for 61.2 s"),
        (connect, ONE, "", "max_connections 1 reached"),
    ],
)
def test_what_stops_every_path_is_the_reason_and_what_stops_one_is_none(
    stop: Callable[[Path, float], None], policy: str, held: str, why: str
) -> None:
    def scenario(rig: Rig, site_queue: SiteQueue) -> None:
        now = rig.loop.time()
        stop(site_queue.paths[0], now)
        assert reasons(rig, site_queue) == ("", "")
        stop(site_queue.paths[1], now)
        assert reasons(rig, site_queue) == (held, why)
        site_queue.spare.append(("v3", 1))  # and another vmta could
        assert reasons(rig, site_queue) == ("", "")

    run(scenario, policy)


def test_of_several_reasons_the_one_that_ends_first_is_told() -> None:
    def scenario(rig: Rig, site_queue: SiteQueue) -> None:
        now = rig.loop.time()
        hold(site_queue.paths[0], now)
        fail(site_queue.paths[1], now)
        assert held_reason(site_queue, now).startswith("back-off")

    run(scenario)


def test_having_nothing_to_do_is_no_reason() -> None:
    def scenario(rig: Rig, site_queue: SiteQueue) -> None:
        for path in site_queue.paths:
            rig.dispatcher.kick(path)
            assert rig.dispatcher.decisions[path].reason == "nothing waits"
        assert reasons(rig, site_queue) == ("", "")

    run(scenario)
