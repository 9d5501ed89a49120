"""widening: a ready queue has as many paths as it needs, and mail never strands for want of one."""

from __future__ import annotations

import math

from engine.core.reply import make_reply
from engine.queue.path import Cap
from tests.fakes.delivery_rig import Rig, ScriptedPeer, make_delivery
from tests.fakes.virtual_loop import run_virtually

SIX = {f"v{number}": 1 for number in range(6)}
REFUSED = make_reply(451, "4.4.1", "connection refused")


def test_a_few_messages_make_one_path() -> None:
    async def main() -> None:
        rig = Rig(vmtas=SIX)
        rig.accept(*[make_delivery() for _ in range(8)])
        await rig.run(5.0)
        assert rig.count("delivered") == 8
        assert len(rig.paths.paths) == 1

    run_virtually(main())


def test_sites_begin_with_another_vmta_each() -> None:
    async def main() -> None:
        rig = Rig(vmtas=SIX)
        rig.accept(*[make_delivery(f"d{number}.example") for number in range(60)])
        await rig.run(5.0)
        assert {name: len(rig.messages(name)) for name in SIX} == dict.fromkeys(SIX, 10)

    run_virtually(main())


def test_paths_with_all_their_connections_bring_in_the_next() -> None:
    async def main() -> None:
        rig = Rig("[default]\nmax_connections = 1", vmtas=SIX)
        rig.answer = lambda path, site: ScriptedPeer(latency_s=0.5)
        rig.accept(*[make_delivery() for _ in range(200)])
        await rig.run(2.0)
        assert len(rig.paths.paths) == len(SIX)

    run_virtually(main())


def test_paths_with_a_spent_rate_bring_in_the_next() -> None:
    async def main() -> None:
        rig = Rig('[default]\nmax_message_rate = "1/min"', vmtas=SIX)
        rig.accept(*[make_delivery() for _ in range(20)])
        await rig.run(30.0)
        assert len(rig.paths.paths) == len(SIX)

    run_virtually(main())


def test_a_hold_that_begins_under_way_brings_in_the_next() -> None:
    async def main() -> None:
        rig = Rig(vmtas=SIX)
        rig.answer = lambda path, site: ScriptedPeer(latency_s=1.0)
        rig.accept(*[make_delivery() for _ in range(40)])
        await rig.run(0.5)
        used = {path.vmta for path in rig.paths.paths.values()}
        assert len(used) < len(SIX)
        for vmta in used:
            rig.paths.hold_vmta(vmta, "op", "paused", math.inf)
        await rig.run(60.0)
        assert rig.count("delivered") == 40
        assert {path.vmta for path in rig.paths.paths.values()} > used

    run_virtually(main())


def test_a_cap_over_all_vmtas_brings_in_nobody() -> None:
    async def main() -> None:
        cap = Cap("max_connections_per_shard", 1)
        rig = Rig(vmtas=SIX, caps=(cap,))
        rig.answer = lambda path, site: ScriptedPeer(latency_s=30.0)
        rig.accept(*[make_delivery() for _ in range(10)])
        await rig.run(20.0)
        assert len(rig.paths.paths) == 1

    run_virtually(main())


def test_a_site_that_refuses_gets_a_path_more_only_when_one_failed_again() -> None:
    async def main() -> None:
        rig = Rig('[default]\nretry = ["1s"]', vmtas=SIX)
        rig.readahead.start()
        rig.answer = lambda path, site: REFUSED
        rig.accept(*[make_delivery() for _ in range(100)])
        await rig.run(0.9)
        assert len(rig.paths.paths) == 2  # the second might have got through
        await rig.run(1.0)
        assert len(rig.paths.paths) == 3
        await rig.run(4.0)
        assert len(rig.paths.paths) < len(SIX)

    run_virtually(main())


def test_a_vmta_that_gets_through_carries_what_others_can_not() -> None:
    async def main() -> None:
        rig = Rig('[default]\nretry = ["1s"]', vmtas=SIX)
        rig.readahead.start()
        rig.answer = lambda path, site: ScriptedPeer() if path.vmta == "v5" else REFUSED
        rig.accept(*[make_delivery() for _ in range(10)])
        await rig.run(120.0)
        assert len(rig.messages("v5")) == 10

    run_virtually(main())


def test_a_spare_vmta_that_left_the_shard_is_passed_over() -> None:
    async def main() -> None:
        rig = Rig("[default]\nmax_connections = 1", vmtas=SIX)
        rig.answer = lambda path, site: ScriptedPeer(latency_s=0.5)
        rig.accept(make_delivery())
        await rig.run(0.1)
        (used,) = {path.vmta for path in rig.paths.paths.values()}
        rig.paths.disown(name for name in SIX if name not in (used, "v5"))
        rig.accept(*[make_delivery() for _ in range(50)])
        await rig.run(5.0)
        assert {path.vmta for path in rig.paths.paths.values()} == {used, "v5"}

    run_virtually(main())
