"""avoidance: what a vmta was refused for goes by another one of the pool, where there is one."""

from __future__ import annotations

from engine.core.reply import Reply, make_reply
from engine.delivery.avoidance import AVOID_S
from engine.queue.path import Path
from tests.fakes.delivery_rig import Rig, ScriptedPeer, make_delivery
from tests.fakes.virtual_loop import run_virtually

POLICY = '[default]\nretry = ["1m"]\nidle_timeout = "5m"'


def test_it_is_carried_by_the_other_vmta() -> None:
    async def main() -> None:
        rig = Rig(POLICY, vmtas={"v1": 1, "v2": 1})
        for number in range(6):
            delivery = make_delivery(f"d{number}.example", now=rig.unix())
            delivery.avoid = "v1" if number % 2 else "v2"
            rig.accept(delivery)
            await rig.run(1.0)
        assert rig.count("delivered") == 6
        assert [event.vmta for event in rig.told("delivered")] == ["v1", "v2"] * 3

    run_virtually(main())


def test_others_of_the_queue_are_not_held_up() -> None:
    async def main() -> None:
        rig = Rig(POLICY, vmtas={"v1": 1, "v2": 1})
        rig.answer = lambda path, site: (
            ScriptedPeer() if path.vmta == "v1" else make_reply(451, "4.4.1", "no")
        )
        delivery = make_delivery(now=rig.unix())
        delivery.avoid = "v1"
        rig.accept(delivery, *[make_delivery(now=rig.unix()) for _ in range(20)])
        await rig.run(AVOID_S - 5.0)
        assert rig.count("delivered") == 20

    run_virtually(main())


def test_with_no_other_vmta_the_same_one_tries_again() -> None:
    async def main() -> None:
        rig = Rig(POLICY)
        delivery = make_delivery(now=rig.unix())
        delivery.avoid = "v1"
        rig.accept(delivery)
        await rig.run(1.0)
        assert rig.count("delivered") == 1

    run_virtually(main())


def test_where_the_other_does_not_get_through_the_same_one_may_after_a_while() -> None:
    async def main() -> None:
        rig = Rig(POLICY, vmtas={"v1": 1, "v2": 1})

        def answer(path: Path, site: str) -> ScriptedPeer | Reply:
            return ScriptedPeer() if path.vmta == "v1" else make_reply(451, "4.4.1", "refused")

        rig.answer = answer
        delivery = make_delivery(now=rig.unix())
        delivery.avoid = "v1"
        rig.accept(delivery)
        await rig.run(AVOID_S + 180.0)
        assert [event.vmta for event in rig.told("delivered")] == ["v1"]

    run_virtually(main())


def test_peer_that_blocks_one_address_gets_the_retry_from_another() -> None:
    async def main() -> None:
        rig = Rig(POLICY, vmtas={"v1": 1, "v2": 1})
        blocked = "451 4.7.1 your address is blocked using zen.spamhaus.org"
        refused: list[str] = []

        def answer(path: Path, site: str) -> ScriptedPeer:
            refused[:] = refused or [path.vmta]
            return ScriptedPeer(
                lambda command: blocked if command == "." and path.vmta == refused[0] else None
            )

        rig.answer = answer
        rig.readahead.start()
        rig.accept(*[make_delivery(now=rig.unix()) for _ in range(3)])
        await rig.run(200.0)
        rig.close()
        assert rig.count("delivered") == 3
        assert {event.vmta for event in rig.told("delivered")}.isdisjoint(refused)

    run_virtually(main())
