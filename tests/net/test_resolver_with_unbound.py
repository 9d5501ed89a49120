"""The resolver against a real one: unbound, with a zone of our own, on a loopback port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.core.errors import ResolvePermanent, ResolveTemporary
from engine.net.resolver import Resolver
from engine.net.site import Host
from engine.settings.model import PROHIBITED_NETWORKS
from tests.fakes.unbound import serve_zones

pytestmark = pytest.mark.stranger("unbound")

ZONE = """\
acme        MX    10 mx1
acme        MX    10 mx2
acme        MX    20 backup
mx1         A     198.51.100.1
mx1         AAAA  2001:db8::1
mx2         CNAME real
real        A     198.51.100.2
backup      A     127.0.0.1
alias       CNAME acme
bare        A     198.51.100.4
text        TXT   "no mail"
null        MX    0 .
dangling    MX    10 gone
lame        NS    ns.lame
ns.lame     A     127.0.0.1
*.wild      MX    5 mx1
many        MX    1 m1
"""
MANY = "".join(f"many MX {number} a-host-with-a-long-name-{number:04}.many\n" for number in range(2, 400))


@pytest.fixture
def unbound(stranger: Callable[[str], str], tmp_path: Path) -> Iterator[int]:
    """Run unbound with the zone; the port it answers on."""
    with serve_zones(stranger, tmp_path, {"mail.example": ZONE + MANY}) as port:
        yield port


def test_names_of_a_real_zone_are_resolved(run, unbound):
    async def scenario() -> None:
        resolver = Resolver(
            nameservers=["127.0.0.1"],
            port=unbound,
            routes={},
            prohibited=PROHIBITED_NETWORKS,
            shuffle=list.sort,
        )
        names = ("acme", "alias", "bare", "a.b.wild", "many")
        found = await asyncio.gather(*(resolver.resolve(f"{name}.mail.example") for name in names))
        acme, alias, bare, wild, many = found
        assert acme.name == "mx1.mail.example,mx2.mail.example;backup.mail.example"
        assert alias is acme
        assert bare.name == "bare.mail.example"
        assert wild.name == "mx1.mail.example"
        assert len(many.hosts) == 20
        assert many.hosts[0].name == "m1.mail.example"

        mx1, mx2, backup = acme.hosts
        assert await resolver.addresses(mx1, "prefer_v6") == ["2001:db8::1", "198.51.100.1"]
        assert await resolver.addresses(mx2, "prefer_v4") == ["198.51.100.2"]
        with pytest.raises(ResolvePermanent, match="may be connected to"):
            await resolver.addresses(backup, "v4")
        with pytest.raises(ResolvePermanent, match="does not exist"):
            await resolver.addresses(Host("gone.mail.example"), "prefer_v4")

        for name, enhanced in (("none", "5.1.2"), ("text", "5.1.2"), ("null", "5.1.10")):
            with pytest.raises(ResolvePermanent) as caught:
                await resolver.resolve(f"{name}.mail.example")
            assert caught.value.reply.enhanced == enhanced
        with pytest.raises(ResolveTemporary):
            await resolver.resolve("x.lame.mail.example")
        resolver.close()

    run(scenario())
