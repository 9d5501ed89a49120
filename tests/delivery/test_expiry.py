"""expiry: what waited too long ends, wherever it waits."""

from __future__ import annotations

import math

from engine.core.envelope import Delivery
from engine.core.terms import Terms
from engine.delivery.expiry import KEYS, LATE_EVERY_S, TICK_S, Expiry
from engine.delivery.site_queue import SiteQueue
from engine.policy.model import Policy
from tests.fakes.delivery_rig import UNIX_START, Rig, make_delivery
from tests.fakes.virtual_loop import run_virtually

SHORT = '[default]\nexpire_after = "1m"'


def make_expiry(rig: Rig) -> Expiry:
    def expire(delivery: Delivery, policy: Policy, site_queue: SiteQueue | None) -> None:
        rig.dispositions.expire(delivery, policy, site_queue)

    expiry = Expiry(
        rig.store, rig.sites, rig.readahead, rig.policy_for, expire, rig.unix, rig.dispositions.tell_late
    )
    expiry.start()
    return expiry


def put(rig: Rig, *deliveries: Delivery) -> None:
    """Store deliveries that nothing brings on."""
    for delivery in deliveries:
        rig.store.put([delivery], delivery.message, lambda error: None)
    rig.store.commit()


def test_expired_while_ready_under_a_hold() -> None:
    async def main() -> None:
        rig = Rig(SHORT)
        expiry = make_expiry(rig)
        rig.paths.hold_vmta("v1", "op", "paused", math.inf)
        rig.accept(make_delivery())
        await rig.run(59.0)
        assert not rig.events
        await rig.run(2.0)
        assert rig.count("expired") == 1
        assert rig.store.count() == 0
        assert rig.window.count == 0
        expiry.close()

    run_virtually(main())


def test_expired_on_disk_whether_due_or_not_and_held_or_not() -> None:
    async def main() -> None:
        rig = Rig(SHORT)
        expiry = make_expiry(rig)
        due, later, held = make_delivery(), make_delivery(), make_delivery()
        later.due_at = UNIX_START + 1e6
        held.held = "poison"
        put(rig, due, later, held)
        await rig.run(59.0)
        assert not rig.events
        await rig.run(2.0)
        assert {event.id for event in rig.told("expired")} == {
            each.message_id.hex() for each in (due, later, held)
        }
        assert rig.store.count() == 0
        expiry.close()

    run_virtually(main())


def test_the_sweep_counts_whose_deliveries_it_passes() -> None:
    """Over the ends of queues and slices alike; what came meanwhile is counted by the next round."""

    async def main() -> None:
        rig = Rig(SHORT)
        expiry = make_expiry(rig)
        whose = {"acme": KEYS, "globex": KEYS - 1, "initech": 3}
        for customer, count in whose.items():
            put(rig, *[make_delivery(f"{n % 5}.example", customer=customer) for n in range(count)])
        total = sum(whose.values())
        assert expiry.census.split(total) == {"": total}
        await rig.run(TICK_S + 0.1)
        assert expiry.census.split(total) == whose
        put(rig, make_delivery(customer="initech"))
        await rig.run(TICK_S + 0.1)
        assert expiry.census.split(total + 1) == whose | {"initech": 4}
        expiry.close()

    run_virtually(main())


def test_what_is_in_flight_is_left_alone() -> None:
    async def main() -> None:
        rig = Rig(SHORT)
        expiry = make_expiry(rig)
        delivery = make_delivery()
        put(rig, delivery)
        rig.readahead.in_memory[delivery.key] = delivery
        await rig.run(90.0)
        assert not rig.events
        expiry.close()

    run_virtually(main())


def test_each_queue_expires_by_its_own_policy() -> None:
    async def main() -> None:
        rig = Rig(
            SHORT
            + '\n[domain."slow.example"]\nexpire_after = "1h"\n[customer.vip.default]\nexpire_after = "2m"'
        )
        expiry = make_expiry(rig)
        put(rig, make_delivery(), make_delivery("slow.example"), make_delivery(customer="vip"))
        await rig.run(62.0)
        assert [event.domain for event in rig.told("expired")] == ["x.example"]
        await rig.run(60.0)
        assert [event.customer for event in rig.told("expired")] == ["acme", "vip"]
        expiry.close()

    run_virtually(main())


def test_a_sweep_that_ran_out_of_time_goes_on_where_it_stopped() -> None:
    async def main() -> None:
        rig = Rig(SHORT)
        expiry = Expiry(
            rig.store, rig.sites, rig.readahead, rig.policy_for,
            lambda delivery, policy, queue: rig.dispositions.expire(delivery, policy, queue), rig.unix,
        )  # fmt: skip
        put(rig, *[make_delivery() for _ in range(KEYS + 5)])
        later = UNIX_START + 100.0
        expiry.sweep(later, deadline=0.0)
        assert rig.count("expired") == KEYS
        expiry.sweep(later, deadline=0.0)
        assert rig.count("expired") == KEYS + 5
        expiry.sweep(later, deadline=0.0)
        assert rig.count("expired") == KEYS + 5

    run_virtually(main())


def test_a_bounce_that_becomes_ready_meanwhile_disturbs_nobody() -> None:
    async def main() -> None:
        rig = Rig(SHORT)
        rig.paths.hold_vmta("v1", "op", "paused", math.inf)
        made: list[Delivery] = []

        def bounce(delivery: Delivery, *_: object) -> None:
            made.append(make_delivery(f"sender{len(made)}.example", sender="", now=rig.unix()))
            rig.accept(made[-1])

        rig.dispositions._bounce = bounce
        expiry = make_expiry(rig)
        rig.accept(*[make_delivery(f"d{number}.example") for number in range(5)])
        await rig.run(60.0 + 2 * TICK_S)
        assert rig.count("expired") == 5
        assert len(rig.sites) == 10
        expiry.close()

    run_virtually(main())


def test_a_retry_that_is_due_at_its_expiry_is_not_sent_again() -> None:
    async def main() -> None:
        rig = Rig('[default]\nexpire_after = "1m"\nretry = ["5m"]')
        expiry = make_expiry(rig)
        delivery = make_delivery()
        put(rig, delivery)
        policy = rig.policy_for("acme", "x.example")
        rig.dispositions._defer(delivery, policy, rig.unix())
        rig.store.commit()
        rig.readahead.start()
        await rig.run(70.0)
        assert not rig.messages()
        assert rig.count("expired") == 1
        expiry.close()
        rig.close()

    run_virtually(main())


def test_message_with_a_deadline_expires_at_it_also_under_a_hold() -> None:
    """RFC 2852 4: with R it is returned at that time."""

    async def main() -> None:
        rig = Rig()
        rig.paths.hold_vmta("v1", "op", "paused", math.inf)
        expiry = make_expiry(rig)
        rig.accept(make_delivery(terms=Terms(by_mode="R", deliver_by_at=rig.unix() + 60.0)))
        await rig.run(59.0)
        assert rig.count("expired") == 0
        await rig.run(1.0 + 2 * TICK_S)
        (event,) = rig.told("expired")
        assert event.reply is not None
        assert event.reply.enhanced == "5.4.7"
        expiry.close()

    run_virtually(main())


def test_time_for_which_a_message_is_held_does_not_count() -> None:
    """RFC 4865 4."""

    async def main() -> None:
        rig = Rig(SHORT)
        expiry = make_expiry(rig)
        put(rig, make_delivery(terms=Terms(hold_until=rig.unix() + 600.0)))
        await rig.run(655.0)
        assert rig.count("expired") == 0
        await rig.run(6.0)
        assert rig.count("expired") == 1
        expiry.close()

    run_virtually(main())


def test_delay_under_a_hold_is_told_though_no_attempt_is_made() -> None:
    """RFC 3461 4.1: DELAY; RFC 2852 4: N."""

    async def main() -> None:
        rig = Rig('[default]\ndelay_notice_after = "10m"')
        rig.paths.hold_vmta("v1", "op", "paused", math.inf)
        expiry = make_expiry(rig)
        asked = make_delivery(terms=Terms(notify="DELAY"))
        rig.accept(make_delivery(), asked, make_delivery(terms=Terms(notify="SUCCESS")))
        rig.accept(make_delivery(terms=Terms(by_mode="N", deliver_by_at=rig.unix() + 60.0)))
        await rig.run(59.0)
        assert not rig.bounced
        await rig.run(1.0 + LATE_EVERY_S + TICK_S)
        assert [bounce[3] for bounce in rig.bounced] == ["delayed"]  # type: ignore[misc]
        await rig.run(540.0)
        assert [bounce[0] for bounce in rig.bounced[1:]] == [asked]
        stored = rig.store.load(asked.key)
        assert stored is not None
        assert stored.told
        await rig.run(100.0)
        assert len(rig.bounced) == 2
        expiry.close()

    run_virtually(main())
