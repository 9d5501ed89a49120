"""Deliveries that wait for the look-up of their domain."""

from __future__ import annotations

import asyncio

from engine.core.envelope import Delivery, Envelope
from engine.core.errors import ResolvePermanent, ResolveTemporary
from engine.core.reply import make_reply
from engine.delivery.resolving import MAX_WAITING, Resolving

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


def make_delivery(domain):
    envelope = Envelope("a@acme.example", "acme", "pool", 1.0, 10, "smtp")
    return Delivery(b"123456789012", 0, envelope, domain, [f"x@{domain}"], 1.0)


def run(*domains):
    """Join one delivery for each domain; return what was told, the resolver and the look-ups."""

    async def main():
        names, told = Names(), []
        resolving = Resolving(asyncio.get_running_loop(), names, lambda *each: told.append(each))
        for domain in domains:
            assert resolving.may_join(domain)
            resolving.join(make_delivery(domain))
        assert len(list(resolving)) == len(domains)
        await asyncio.sleep(0.01)
        assert not list(resolving)
        return told, names, resolving.has_failed("down.example"), resolving.may_join("down.example")

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
        assert not resolving.may_join("ok.example")
        assert resolving.may_join("other.example")
        resolving.close()

    asyncio.run(main())
