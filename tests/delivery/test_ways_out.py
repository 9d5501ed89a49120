"""Ways out other than to an MX host from a vmta's own address: LMTP, smarthosts, proxies; and families.

aiosmtpd is the stranger that is met.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from engine.core.reply import Reply
from engine.delivery import attempt, opening
from engine.delivery.securing import Secured, secure
from engine.net.routes import Routes
from engine.net.site import NO_ACCESS, Access, Host, Site, make_site, with_demand
from engine.net.tls import CLEAR
from engine.rig.certificate import write_certificate
from engine.security.demand import OPTIONAL, REQUIRED, Demand
from engine.settings.fields import proxy as parse_proxy
from engine.settings.model import Route, VirtualMTA
from tests.delivery.test_opening import Peer, Rig, make_delivery, on_uvloop, scene, site_of, until
from tests.delivery.test_securing import Records, policy


class Handler:
    """Takes messages, for recipients u0 and so on; says what each of them gets."""

    def __init__(self, *replies: str) -> None:
        self.replies = replies or ("250 2.0.0 ok",)
        self.envelopes: list[Envelope] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        return "\r\n".join(self.replies)


@contextlib.asynccontextmanager
async def serving(make: Callable[[], asyncio.Protocol], path: str = "") -> AsyncIterator[int]:
    """Serve on loopback, or on a unix socket; yields the port."""
    loop = asyncio.get_running_loop()
    if path:
        server = await loop.create_unix_server(make, path)
    else:
        server = await loop.create_server(make, "127.0.0.1", 0)
    try:
        yield 0 if path else server.sockets[0].getsockname()[1]
    finally:
        server.close()


def routed(route: Route) -> Site:
    site = Routes({"*": route}).find("x.example")
    assert site is not None
    return site


async def let_go(rig: Rig) -> None:
    for session in list(rig.opener.sessions):
        session.quit()
    await until(lambda: not rig.opener.sessions)
    await asyncio.sleep(0.01)


def replies(rig: Rig) -> list[Reply | None]:
    ((flight, outcome),) = rig.settled
    return [outcome.reply_for(index) for index in range(len(flight.recipients))]


# -- LMTP --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_unix", [False, True])
def test_a_stranger_answers_each_recipient_over_lmtp(tmp_path: Path, is_unix: bool) -> None:
    """RFC 2033 sections 4.1 and 4.2, over TCP and a unix socket; the source is the kernel's choice."""

    async def main() -> None:
        handler = Handler("250 2.1.5 saved", "452 4.2.2 mailbox full", "250 2.1.5 saved")
        path = str(tmp_path / "lmtp") if is_unix else ""
        async with serving(lambda: LMTP(handler), path) as port:
            rig = Rig(vmta=VirtualMTA(name="v1", v4="192.0.2.77", v6="", hostname="v1.acme.example"))
            rig.addresses_of["127.0.0.1"] = ["127.0.0.1"]
            hop = f"lmtp:unix:{path}" if is_unix else f"lmtp:127.0.0.1:{port}"
            rig.push(routed(Route(hosts=(hop,))), make_delivery(recipients=3))
            await until(lambda: rig.settled)
            assert [str(reply) for reply in replies(rig)] == list(handler.replies)
            (session,) = rig.opener.sessions
            facts = session.facts
            assert facts.peer.host == (f"unix:{path}" if is_unix else "127.0.0.1")
            assert facts.source == ("" if is_unix else "127.0.0.1")
            await let_go(rig)

    on_uvloop(main())


@scene
async def test_a_unix_socket_that_is_not_there_is_tried_again_later() -> None:
    rig = Rig()
    rig.push(routed(Route(hosts=("lmtp:unix:/nonexistent/lmtp",))), make_delivery())
    await until(lambda: rig.unreachable)
    assert str(rig.unreachable[0]) == ("451 4.4.1 connect: /nonexistent/lmtp: No such file or directory")


# -- smarthosts --------------------------------------------------------------------------------------------


def check_password(server: Any, session: Any, envelope: Any, mechanism: str, login: Any) -> AuthResult:
    is_right = isinstance(login, LoginPassword) and (login.login, login.password) == (b"acme", b"sesame")
    return AuthResult(success=is_right, handled=False)


@contextlib.asynccontextmanager
async def smarthost(handler: Handler, directory: Path | None) -> AsyncIterator[int]:
    """Serve a smarthost that wants AUTH; with a directory, under TLS alone."""
    context = None
    if directory is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(write_certificate(directory / "smart.pem", "smtp.example"))

    def make() -> SMTP:
        return SMTP(
            handler,
            hostname="smtp.example",
            tls_context=context,
            require_starttls=context is not None,
            auth_required=True,
            auth_require_tls=context is not None,
            authenticator=check_password,
        )

    async with serving(make) as port:
        yield port


def test_a_smarthost_is_logged_in_to_under_tls(tmp_path: Path) -> None:
    """RFC 4954 section 4: credentials go under TLS, here although policy asks for none."""

    async def main() -> None:
        handler = Handler()
        async with smarthost(handler, tmp_path) as port:
            rig = Rig()
            rig.addresses_of["127.0.0.1"] = ["127.0.0.1"]
            route = Route(hosts=(f"127.0.0.1:{port}",), user="acme", password="sesame")
            queue = rig.push(routed(route), make_delivery())
            await until(lambda: rig.settled)
            assert [reply.code for reply in replies(rig) if reply] == [250]
            (session,) = rig.opener.sessions
            assert session.facts.tls
            assert "sesame" not in f"{session!r} {session.facts} {queue.site!r}"
            assert len(handler.envelopes) == 1
            await let_go(rig)

    on_uvloop(main())


@pytest.mark.parametrize("is_allowed", [False, True])
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_smarthost_in_clear_gets_credentials_only_where_that_is_allowed(is_allowed: bool) -> None:
    async def main() -> None:
        handler = Handler()
        async with smarthost(handler, None) as port:
            rig = Rig()
            rig.addresses_of["127.0.0.1"] = ["127.0.0.1"]
            route = Route(
                hosts=(f"127.0.0.1:{port}",), user="acme", password="sesame", allow_plaintext_auth=is_allowed
            )
            rig.push(routed(route), make_delivery())
            await until(lambda: rig.settled or rig.unreachable)
            assert len(handler.envelopes) == is_allowed
            assert [reply.enhanced for reply in rig.unreachable] == ([] if is_allowed else ["4.7.4"])
            await let_go(rig)

    on_uvloop(main())


def test_a_wrong_password_makes_mail_wait_and_is_not_repeated(tmp_path: Path) -> None:
    async def main() -> None:
        async with smarthost(Handler(), tmp_path) as port:
            rig = Rig()
            rig.addresses_of["127.0.0.1"] = ["127.0.0.1"]
            rig.push(
                routed(Route(hosts=(f"127.0.0.1:{port}",), user="acme", password="guess")), make_delivery()
            )
            await until(lambda: rig.unreachable)
            assert rig.unreachable[0].code == 535
            assert "guess" not in str(rig.unreachable[0])
            assert rig.opened() == {"auth": 1}
            await asyncio.sleep(0.01)

    on_uvloop(main())


def secured(asked: str, access: Access, word: str = "", **host: Any) -> Secured:
    to = Host("mx.example", is_routed=True, **host)
    site = with_demand(make_site([to], is_route=True, access=access), Demand(word=word))
    found = asyncio.run(secure(Records(), site, to, 25, policy(f'[default]\ntls = "{asked}"\n')))
    assert isinstance(found, Secured)
    return found


@pytest.mark.parametrize(
    ("asked", "access", "mode"),
    [
        ("opportunistic", NO_ACCESS, "opportunistic"),
        ("opportunistic", Access(tls="verify"), "verify"),
        ("verify", Access(tls="none"), "none"),
        ("opportunistic", Access(user="u", password="p"), "required"),
        ("none", Access(user="u", password="p"), "required"),
        ("opportunistic", Access(user="u", password="p", tls="verify"), "verify"),
        ("opportunistic", Access(user="u", password="p", allows_plaintext=True), "opportunistic"),
    ],
)
def test_a_route_says_what_it_needs_of_tls(asked: str, access: Access, mode: str) -> None:
    assert secured(asked, access).tls.mode == mode


def test_mail_that_requires_tls_gets_it_whatever_its_route_says() -> None:
    """RFC 8689 section 4.2.1."""
    found = secured("none", Access(tls="none"), REQUIRED)
    assert (found.tls.mode, found.demand.needs_requiretls) == ("verify", True)


def test_credentials_need_tls_also_where_the_mail_does_not() -> None:
    """RFC 8689 section 4.2.2 is about the message; RFC 4954 section 8 about who logs in."""
    assert secured("verify", Access(user="u", password="p"), OPTIONAL).tls.mode == "required"
    assert secured("verify", NO_ACCESS, OPTIONAL).tls.mode == "opportunistic"


def test_a_unix_socket_needs_no_tls() -> None:
    assert secured("verify", NO_ACCESS, path="/run/lmtp", is_lmtp=True).tls is CLEAR


# -- ourselves, families -----------------------------------------------------------------------------------


@scene
async def test_hosts_no_better_than_ourselves_are_never_met() -> None:
    """RFC 5321 section 5.1: where the better hosts do not answer, mail waits for them."""
    peer = Peer()
    async with peer.listen("127.0.0.2") as port:
        rig = Rig()
        rig.own = {"mx2"}
        rig.addresses_of = {"mx1": ["127.0.0.3"], "mx2": ["127.0.0.2"], "mx3": ["127.0.0.2"]}
        rig.push(site_of("mx1", "mx2", "mx3", port=port), make_delivery())
        await until(lambda: rig.unreachable)
        assert rig.unreachable[0].enhanced == "4.4.1"
        assert not peer.clients


@scene
async def test_the_best_host_that_is_ourselves_at_that_port_is_a_loop() -> None:
    """RFC 5321 section 5.1, RFC 3463 section 3.5: X.4.6; at another port another server answers."""
    peer, other = Peer(), Peer()
    async with peer.listen("127.0.0.2") as port, other.listen("127.0.0.2") as other_port:
        rig = Rig()
        rig.own = {f"mx1:{port}"}
        rig.addresses_of = {"mx1": ["127.0.0.2"], "mx2": ["127.0.0.2"]}
        rig.push(site_of("mx1", "mx2", port=port), make_delivery())
        await until(lambda: rig.unreachable)
        assert (rig.unreachable[0].code, rig.unreachable[0].enhanced) == (554, "5.4.6")
        assert not peer.clients
        rig.push(site_of("mx1", port=other_port), make_delivery())
        await until(lambda: rig.settled)
        assert other.clients
        await let_go(rig)


@scene
async def test_ipv6_that_leads_nowhere_falls_back_to_ipv4_of_the_same_host() -> None:
    """RFC 5321 section 5.1: each address of a host, then the next host; however many there are."""
    peer = Peer()
    async with peer.listen("127.0.0.1") as port:
        vmta = VirtualMTA(name="v1", v4="127.0.0.9", v6="::1", hostname="v1.acme.example")
        rig = Rig('[domain."x.example"]\naddress_family = "prefer_v6"\n', vmta=vmta)
        rig.addresses_of = {"mx1": ["::1"] * 9 + ["127.0.0.1"], "mx2": ["127.0.0.1"]}
        rig.push(site_of("mx1", "mx2", port=port), make_delivery())
        await until(lambda: rig.settled)
        (session,) = rig.opener.sessions
        assert (session.facts.peer.host, session.facts.source) == ("mx1", "127.0.0.9")
        await let_go(rig)


# -- proxies -----------------------------------------------------------------------------------------------


def through(proxy: str) -> VirtualMTA:
    return VirtualMTA(
        name="v1", v4="203.0.113.10", v6="", hostname="v1.acme.example", proxy=parse_proxy(proxy)
    )


@scene
async def test_a_session_through_a_proxy_tells_both_addresses() -> None:
    """The vmta's source need not be on this host; events have it, and the proxy beside it."""
    peer = Peer()
    headers: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers.append(await reader.readuntil(b"\r\n"))
        await peer.serve(reader, writer)

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    at = server.sockets[0].getsockname()[1]
    rig = Rig(vmta=through(f"haproxy-v1:127.0.0.1:{at}"))
    rig.addresses_of = {"mx": ["192.0.2.25"], "127.0.0.1": ["127.0.0.1"]}
    rig.push(site_of("mx", port=25), make_delivery())
    await until(lambda: rig.settled)
    assert headers == [b"PROXY TCP4 203.0.113.10 192.0.2.25 0 25\r\n"]
    (session,) = rig.opener.sessions
    facts = session.facts
    assert (facts.source, facts.proxy) == ("203.0.113.10", f"haproxy-v1:127.0.0.1:{at}")
    assert (facts.peer.address, facts.peer.port) == ("192.0.2.25", 25)
    await let_go(rig)
    server.close()


@scene
async def test_the_address_that_a_socks_proxy_connects_from_is_told() -> None:
    """RFC 1928 section 6: what it says there is what the peer sees, whatever the vmta's source is."""
    peer = Peer()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(b"\5\0")
        await reader.readexactly(10)
        writer.write(b"\5\0\0\1\xc6\x33\x64\x09\0\0")
        await peer.serve(reader, writer)

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    at = server.sockets[0].getsockname()[1]
    rig = Rig(vmta=through(f"socks5://127.0.0.1:{at}"))
    rig.addresses_of = {"mx": ["192.0.2.25"], "127.0.0.1": ["127.0.0.1"]}
    rig.push(site_of("mx", port=25), make_delivery())
    await until(lambda: rig.settled)
    (session,) = rig.opener.sessions
    assert session.facts.source == "198.51.100.9"
    await let_go(rig)
    server.close()


def test_a_vmta_that_gets_a_proxy_needs_its_source_here_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(opening, "SOURCE_RECHECK_S", 0.02)
        vmta = through("haproxy:127.0.0.1:1")
        rig = Rig(vmta=VirtualMTA(name="v1", v4=vmta.v4, v6="", hostname=vmta.hostname))
        rig.addresses_of = {"mx": ["192.0.2.25"], "127.0.0.1": ["127.0.0.1"]}
        rig.push(site_of("mx", port=25), make_delivery())
        await until(lambda: f"source {vmta.v4}" in rig.path.holds)
        rig.paths.own([vmta], 0.0)
        await until(lambda: f"source {vmta.v4}" not in rig.path.holds)

    on_uvloop(main())


@scene
async def test_a_proxy_that_fails_holds_the_path_and_blames_no_peer() -> None:
    async with Peer().listen("127.0.0.1") as port:
        pass
    rig = Rig(vmta=through(f"socks5://ann:sesame@127.0.0.1:{port}"))
    rig.addresses_of = {"mx": ["192.0.2.25"], "127.0.0.1": ["127.0.0.1"]}
    rig.push(site_of("mx", port=25), make_delivery())
    await until(lambda: rig.path.holds)
    hold = rig.path.holds["proxy"]
    assert f"socks5:127.0.0.1:{port}" in hold.reason
    assert "sesame" not in hold.reason
    assert 0 < hold.until - rig.loop.time() <= attempt.PROXY_PAUSE_S
    assert not rig.unreachable
    assert rig.opened() == {"proxy": 1}
