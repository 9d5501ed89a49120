"""bouncing: what waits of a customer for a destination, by slices. Whole scenes: test_reacting."""

from __future__ import annotations

from engine.delivery.bouncing import SLICE, bounced_by
from engine.queue.reactions import Reach, Reactions, Terms
from tests.fakes.delivery_rig import make_delivery
from tests.fakes.rules_rig import RulesRig, rule
from tests.fakes.virtual_loop import run_virtually

PURGE = rule(name="purge", code=554, do="bounce", scope="waiting", **{"for": "10m"})
REACH = Reach("waiting", destination="mx.x.example", customer="acme")


def begin(rig: RulesRig) -> None:
    found = Reactions().begin("purge", "bounce", REACH, Terms(600.0), "554 5.7.1 no", rig.loop.time())
    assert found is not None
    rig.reacting.take_over([found])


def test_senders_are_told_the_rule_and_what_the_peer_had_said() -> None:
    found = Reactions().begin("purge", "bounce", REACH, Terms(1.0), "554 5.7.1 no", 0.0)
    assert found is not None
    reply = bounced_by(found)
    assert (str(reply), reply.synthetic) == ("550 5.7.1 bounced by rule purge after: 554 5.7.1 no", True)


def test_it_takes_a_slice_at_a_time_and_nothing_leaves_meanwhile() -> None:
    async def main() -> None:
        rig = RulesRig("[default]\nmax_connections = 1\n" + PURGE)
        rig.open_s = 1.0
        rig.accept(*[make_delivery() for _ in range(4 * SLICE)])
        begin(rig)
        await rig.run(0.01, 0.001)
        assert rig.count("bounced") == SLICE
        await rig.run(5.0)
        assert (rig.count("bounced"), rig.count("delivered"), rig.store.count()) == (4 * SLICE, 0, 0)

    run_virtually(main())


def test_what_is_held_for_itself_is_left_alone() -> None:
    async def main() -> None:
        rig = RulesRig(PURGE)
        poison = make_delivery()
        poison.held = "poison"
        poison.due_at += 1e6
        rig.accept(poison)
        begin(rig)
        await rig.run(5.0)
        assert (rig.count("bounced"), rig.store.count()) == (0, 1)

    run_virtually(main())


def test_a_process_that_starts_goes_on_where_the_last_one_was_cut_off() -> None:
    async def main() -> None:
        rig = RulesRig("[default]\nmax_connections = 1\n" + PURGE)
        begin(rig)
        rig.accept(*[make_delivery() for _ in range(10)])
        await rig.run(1.0)
        assert rig.count("bounced") == 10
        rig.bouncing.close()

    run_virtually(main())
