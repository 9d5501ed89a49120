"""Deliveries that wait for the look-up of their domain."""

from __future__ import annotations

import asyncio

from engine.core.envelope import Delivery, Envelope
from engine.core.errors import ResolvePermanent, ResolveTemporary
from engine.core.reply import make_reply
from engine.delivery.resolving import (
    CROWD,
    CROWDED_WAITING,
    MAX_RESOLVING,
    MAX_WAITING,
    MAX_YOUNG,
    YOUNG_S,
    Resolving,
)
from tests.fakes.virtual_loop import run_virtually

GONE = make_reply(550, "5.1.2", "no such domain")


class Names:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def lookup(self, domain):
        return None

    async def resolve(self, domain):
        self.asked.append(domain)
        await asyncio.sleep(0)
        if domain == "down.example":
            raise ResolveTemporary(domain, "SERVFAIL")
        if domain == "gone.example":
            raise ResolvePermanent(domain, "NXDOMAIN", GONE)


def make_delivery(domain, customer="acme"):
    envelope = Envelope("a@acme.example", customer, "pool", 1.0, 10, "smtp")
    return Delivery(b"123456789012", 0, envelope, domain, [f"x@{domain}"], 1.0)


def run(*domains):
    """Join one delivery for each domain; return what was told, the resolver and the look-ups."""

    async def main():
        names, told = Names(), []
        resolving = Resolving(asyncio.get_running_loop(), names, lambda *each: told.append(each))
        for domain in domains:
            assert resolving.may_join(domain, "acme")
            resolving.join(make_delivery(domain))
        assert len(list(resolving)) == len(domains)
        await asyncio.sleep(0.01)
        assert not list(resolving)
        return told, names, resolving.has_failed("down.example"), resolving.may_join("down.example", "acme")

    return asyncio.run(main())


def test_one_lookup_serves_all_that_wait_for_a_domain():
    told, names, _, _ = run("ok.example", "ok.example")
    assert names.asked == ["ok.example"]
    assert [(len(waiting), reply, permanent) for waiting, reply, permanent in told] == [(2, None, False)]


def test_a_permanent_failure_brings_its_reply_and_may_be_asked_again():
    told, _, _, _ = run("gone.example")
    assert told[0][1:] == (GONE, True)


def test_a_temporary_failure_is_not_asked_again_at_once():
    told, _, has_failed, may_join = run("down.example")
    assert (told[0][1].code, told[0][2]) == (451, False)
    assert has_failed
    assert not may_join


def test_a_domain_has_so_many_waiting_and_no_more():
    async def main():
        resolving = Resolving(asyncio.get_running_loop(), Names(), lambda *_: None)
        for _ in range(MAX_WAITING):
            resolving.join(make_delivery("ok.example"))
        assert not resolving.may_join("ok.example", "acme")
        assert resolving.may_join("other.example", "acme")
        resolving.close()

    asyncio.run(main())


# -- between customers --------------------------------------------------------------------------------


class Patient(Names):
    """Answers for what begins with "ok" after 0.1 s, for the rest never."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = {}

    async def resolve(self, domain):
        self.asked.append(domain)
        if not domain.startswith("ok"):
            await asyncio.sleep(3600.0)
        await asyncio.sleep(0.1)
        self.answered[domain] = asyncio.get_running_loop().time()


def dead(number):
    return f"dead{number}.example"


def storm(resolving, count, customer="acme", names=dead):
    """Have a customer ask for so many domains, as far as it may; return how many came in."""
    joined = 0
    for number in range(count):
        if resolving.may_join(names(number), customer):
            resolving.join(make_delivery(names(number), customer))
            joined += 1
    return joined


def run_with(scenario):
    async def main():
        names = Patient()
        resolving = Resolving(asyncio.get_running_loop(), names, lambda *_: None)
        await scenario(resolving, names)
        resolving.close()

    run_virtually(main())


def test_domains_that_nobody_answers_for_delay_no_other_customer():
    async def scenario(resolving, names):
        loop = asyncio.get_running_loop()
        storm(resolving, 100_000)
        await asyncio.sleep(0.01)
        began = loop.time()
        assert resolving.may_join("ok.example", "beta")
        resolving.join(make_delivery("ok.example", "beta"))
        await asyncio.sleep(60.0)
        assert names.answered["ok.example"] - began < YOUNG_S + 0.2

    run_with(scenario)


def test_a_domain_that_two_customers_wait_for_is_asked_for_at_the_first_turn_of_either():
    async def scenario(resolving, names):
        storm(resolving, 1000)
        resolving.join(make_delivery("ok.example", "acme"))
        resolving.join(make_delivery("ok.example", "beta"))
        await asyncio.sleep(YOUNG_S + 0.2)
        assert "ok.example" in names.answered
        await asyncio.sleep(10.0)
        assert names.asked.count("ok.example") == 1

    run_with(scenario)


def test_a_customers_good_domains_wait_for_its_dead_ones_a_moment_each_burst():
    async def scenario(resolving, names):
        loop = asyncio.get_running_loop()
        began = loop.time()
        storm(resolving, 3 * MAX_YOUNG)
        resolving.join(make_delivery("ok.example"))
        await asyncio.sleep(10.0)
        assert names.answered["ok.example"] - began < 4 * YOUNG_S

    run_with(scenario)


def test_nobody_can_have_all_places_and_all_together_no_more_than_there_are():
    async def scenario(resolving, _):
        assert storm(resolving, 10_000) == MAX_RESOLVING // 2
        assert storm(resolving, 10_000, "beta", lambda number: f"b{number}.example") == MAX_RESOLVING // 4
        for customer in range(3000):
            storm(
                resolving,
                3,
                f"c{customer}",
                lambda number, customer=customer: f"{number}.c{customer}.example",
            )
        assert len(list(resolving)) == MAX_RESOLVING
        assert not resolving.may_join("late.example", "late")

    run_with(scenario)


def test_burst_of_look_ups_is_paced():
    async def scenario(resolving, names):
        storm(resolving, 500)
        await asyncio.sleep(YOUNG_S / 2)
        assert len(names.asked) == MAX_YOUNG
        await asyncio.sleep(YOUNG_S)
        assert len(names.asked) == 2 * MAX_YOUNG

    run_with(scenario)


def test_among_many_domains_few_deliveries_wait_for_each():
    async def scenario(resolving, _):
        storm(resolving, CROWD + 1)
        joined = 1
        while resolving.may_join(dead(0), "beta"):
            resolving.join(make_delivery(dead(0), "beta"))
            joined += 1
        assert joined == CROWDED_WAITING

    run_with(scenario)


# -- what has failed ----------------------------------------------------------------------------------


def test_a_domain_that_failed_is_asked_again_when_a_delivery_is_due_or_an_operator_says_so():
    async def main():
        loop = asyncio.get_running_loop()
        resolving = Resolving(loop, Names(), lambda *_: None)
        resolving.join(make_delivery("down.example"))
        await asyncio.sleep(0.01)
        resolving.ask_again_within("down.example", 2.0)
        resolving.ask_again_within("down.example", 300.0)
        await asyncio.sleep(1.9)
        assert resolving.has_failed("down.example")
        await asyncio.sleep(0.2)
        assert not resolving.has_failed("down.example")
        resolving.join(make_delivery("down.example"))
        await asyncio.sleep(0.01)
        assert resolving.has_failed("down.example")
        resolving.forget_failure("down.example")
        assert resolving.may_join("down.example", "acme")

    run_virtually(main())
