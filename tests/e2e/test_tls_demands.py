"""What recipient domains ask of TLS, through the whole engine.

unbound has a zone that the test signs, hosts have certificates of an authority of its own, policies are at an
https server."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import smtplib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from engine.security.tally import NO_POLICY, Tally, day_of
from tests.e2e.configuration import Configuration, free_port
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import make_message
from tests.fakes.authority import Authority
from tests.fakes.tls_peer import TlsPeer, run_in_thread, serve_tls
from tests.fakes.unbound import serve_zones

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.stranger("unbound"),
]

NAMES = ("pinned", "wrong", "valid", "self", "lapsed")
HOSTS = {name: f"127.0.9.{number}" for number, name in enumerate(NAMES, 21)}
WEB = "127.0.9.31"
PLAIN_ZONE = f"""\
enforced        MX    10 valid
refused         MX    10 self
unnamed         MX    10 valid
brief           MX    10 valid
testing         MX    10 self
none            MX    10 self
valid           A     {HOSTS["valid"]}
self            A     {HOSTS["self"]}
reports         MX    10 self
https.reports   A     {WEB}
_smtp._tls.asks TXT   "v=TLSRPTv1; rua=mailto:tls@reports.plain.example,https://https.reports.plain.example:PORT/v1"
""" + "".join(
    f'_mta-sts.{name} TXT "v=STSv1; id=1"\nmta-sts.{name} A {WEB}\n'
    for name in ("enforced", "refused", "unnamed", "testing", "brief")
)
POLICIES = {
    "enforced": ("enforce", "valid.plain.example"),
    "refused": ("enforce", "self.plain.example"),
    "unnamed": ("enforce", "other.plain.example"),
    "testing": ("testing", "self.plain.example"),
}
BRIEF = {"brief": ("enforce", "other.plain.example")}  # its policy lasts for seconds
# Below the signed zone: DANE says one thing of these hosts, MTA-STS another.
SIGNED_POLICIES = {
    "proven-mail": ("enforce", "other.signed.example"),
    "lapsed-mail": ("enforce", "lapsed.signed.example"),
}


class Web:
    """The policy hosts, and where reports are posted."""

    def __init__(self, certificate: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.policies = POLICIES | BRIEF | SIGNED_POLICIES
        self.fetched: list[str] = []
        self.posted: list[bytes] = []

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if request.method == "POST":
            self.posted.append(await request.read())
            return web.Response(status=201)
        name = request.host.split(".")[1]
        self.fetched.append(name)
        mode, mx = self.policies[name]
        age_s = 4 if name in BRIEF else 86400
        return web.Response(text=f"version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: {age_s}\n")


@contextlib.contextmanager
def serve_web(server: Web, port: int) -> Iterator[None]:
    """Serve on the web's address."""
    with run_in_thread() as loop:

        async def start() -> web.ServerRunner:
            runner = web.ServerRunner(web.Server(server.answer), shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, WEB, port, ssl_context=server.context).start()
            return runner

        runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)


class World:
    """Everything that the engine meets, and the engine."""

    def __init__(self, root: Path, stranger: Any, stack: contextlib.ExitStack) -> None:
        self.port = free_port(HOSTS["pinned"])
        web_port = free_port(WEB)
        authority = Authority("Test Root")
        pinned = Authority("any name at all", is_ca=False)
        stray = Authority("wrong.signed.example", is_ca=False)
        certificates = {
            "pinned": pinned,
            "wrong": stray,
            "valid": authority.issue("valid.plain.example"),
            "self": Authority("self.plain.example", is_ca=False),
            "lapsed": authority.issue("lapsed.signed.example"),
        }
        self.peers = {}
        for name, certificate in certificates.items():
            self.peers[name] = TlsPeer(certificate.write(root / f"{name}.pem"))
            stack.enter_context(serve_tls(self.peers[name], HOSTS[name], self.port))
        digest = hashlib.sha256(pinned.key_der).hexdigest()
        signed = "".join(
            f"{name}-mail MX 10 {name}\n{name} A {HOSTS[name]}\n"
            f"_{self.port}._tcp.{name} TLSA 3 1 1 {digest}\n"
            for name in ("pinned", "wrong", "lapsed")
        )
        signed += "proven-mail MX 10 pinned\n" + "".join(
            f'_mta-sts.{name} TXT "v=STSv1; id=1"\nmta-sts.{name} A {WEB}\n' for name in SIGNED_POLICIES
        )
        zones = {"signed.example": signed, "plain.example": PLAIN_ZONE.replace("PORT", str(web_port))}
        dns_port = stack.enter_context(serve_zones(stranger, root, zones, signed=["signed.example"]))
        names = [f"mta-sts.{name}.plain.example" for name in (*POLICIES, *BRIEF)]
        names += [f"mta-sts.{name}.signed.example" for name in SIGNED_POLICIES]
        self.web = Web(authority.issue(names[0], others=names[1:]).write(root / "web.pem"))
        stack.enter_context(serve_web(self.web, web_port))
        self.configuration = Configuration(root)
        self.configuration.engine |= {
            "shards": 1,
            "validating_resolver": f"127.0.0.1:{dns_port}",
            "mta_sts": True,
            "mta_sts_port": web_port,
            "tls_ca_file": str(authority.write_certificate(root / "ca.pem")),
            "tls_report_from": "tls@acme.example",
            "prohibited_networks": [],
        }
        self.configuration.policies = f"[default]\nport = {self.port}\n"
        self.configuration.add_customer("acme", "127.0.1.1")
        self.smtp_port = self.configuration.add_smtp(customer="acme")
        self.engine = EngineProcess(self.configuration)
        stack.callback(self.engine.close)

    def send(self, domain: str, *, header: str = "", sender: str = "news@acme.example") -> None:
        recipient = f"u@{domain}.example"
        message = header.encode() + make_message(sender, recipient, domain)
        with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=30) as session:
            session.sendmail(sender, [recipient], message)

    def event(self, domain: str) -> dict[str, Any]:
        """Wait for the first disposition of mail to that domain."""

        def first() -> Any:
            found = self.engine.events_of("delivered", "deferred", "bounced")
            return next((event for event in found if event["domain"] == f"{domain}.example"), None)

        return wait_until(first, 20.0, f"disposition of {domain}; log:\n{self.engine.log_tail()}")


@pytest.fixture
def world(root: Path, stranger: Any) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(root, stranger, stack)


def test_domains_get_the_protection_that_they_ask_for(world: World) -> None:
    """RFC 7672, RFC 8461."""
    world.engine.start()
    domains = ("pinned-mail.signed", "wrong-mail.signed", *(f"{name}.plain" for name in (*POLICIES, "none")))
    for domain in domains:
        world.send(domain)
    told = {domain: world.event(domain) for domain in domains}
    kinds = {domain: event["event"] for domain, event in told.items()}
    assert kinds == {
        "pinned-mail.signed": "delivered",
        "wrong-mail.signed": "deferred",
        "enforced.plain": "delivered",
        "refused.plain": "deferred",
        "unnamed.plain": "deferred",
        "testing.plain": "delivered",
        "none.plain": "delivered",
    }
    assert told["pinned-mail.signed"]["tls_verification"] == "dane"
    assert told["enforced.plain"]["tls_verification"] == "verified"
    assert "does not name" in told["unnamed.plain"]["reply"]["text"]
    assert told["testing.plain"]["site"] == told["none.plain"]["site"] == "self.plain.example"
    assert told["testing.plain"]["session"] != told["none.plain"]["session"]
    assert not world.peers["wrong"].messages
    assert sorted(world.web.fetched) == sorted(POLICIES)

    answer = world.engine.get("/explain?domain=enforced.plain.example")
    assert answer["security"] == ["MTA-STS: enforce, mx valid.plain.example, 86400 s"]
    answer = world.engine.get("/explain?domain=pinned-mail.signed.example")
    assert answer["security"][1] == "pinned.signed.example: must agree with one of 1 TLSA records"

    world.engine.stop()  # kept policies hold without a policy host: nothing is fetched again
    world.engine.start()
    world.send("enforced.plain")
    wait_until(lambda: len(world.peers["valid"].messages) == 2, 20.0, "second message")
    assert len(world.web.fetched) == len(POLICIES)


def test_dane_outranks_mta_sts_whichever_would_let_mail_go(world: World) -> None:
    """RFC 8461 section 2: a DANE that fails MUST NOT be overridden; RFC 7672: one that holds is enough."""
    world.engine.start()
    for domain in ("proven-mail.signed", "lapsed-mail.signed"):
        world.send(domain)
    assert (
        world.event("proven-mail.signed")["event"] == "delivered"
    )  # to a host that its policy does not name
    lapsed = world.event(
        "lapsed-mail.signed"
    )  # its certificate is what the policy asks for, and not the record
    assert (lapsed["event"], lapsed["reply"]["enhanced"]) == ("deferred", "4.7.5")
    assert "agrees with no TLSA record" in lapsed["reply"]["text"]
    assert not world.peers["lapsed"].messages
    assert sorted(world.web.fetched) == sorted(SIGNED_POLICIES)


def test_policy_is_fetched_again_before_it_ends_and_the_new_one_holds(world: World) -> None:
    """RFC 8461 section 3.3; one that can't be fetched again holds until it ends."""
    world.engine.start()
    world.send("brief.plain")
    assert "does not name" in world.event("brief.plain")["reply"]["text"]
    world.web.policies["brief"] = ("enforce", "valid.plain.example")

    def arrives() -> bool:
        world.send("brief.plain")
        time.sleep(0.5)
        return bool(world.peers["valid"].messages)

    wait_until(arrives, 20.0, "a message under the new policy")
    assert world.web.fetched.count("brief") >= 2


def test_tls_required_no_goes_where_the_rest_is_refused(world: World) -> None:
    """RFC 8689 section 4.2.2."""
    world.engine.start()
    world.send("wrong-mail.signed", header="TLS-Required: No\r\n")
    assert world.event("wrong-mail.signed")["event"] == "delivered"
    assert world.peers["wrong"].messages[0][0]  # under TLS, since that works


def test_requiretls_goes_only_to_verified_peers_that_offer_it(world: World) -> None:
    """RFC 8689 section 4.2.1."""
    world.peers["valid"].offers = ("REQUIRETLS",)
    world.peers["self"].offers = ("REQUIRETLS",)
    world.engine.start()
    header = "X-Mailrail-Requires-TLS: yes\r\n"
    for domain in ("enforced.plain", "testing.plain", "none.plain", "pinned-mail.signed"):
        world.send(domain, header=header)
    assert world.event("enforced.plain")["event"] == "delivered"
    assert world.peers["valid"].mails[0].endswith(" REQUIRETLS")
    enhanced = {
        domain: (world.event(domain)["event"], world.event(domain)["reply"]["enhanced"])
        for domain in ("testing.plain", "none.plain", "pinned-mail.signed")
    }
    assert enhanced == {
        "testing.plain": ("bounced", "5.7.10"),  # its certificate is nobody's
        "none.plain": ("bounced", "5.7.10"),  # nobody vouches for its MX
        "pinned-mail.signed": ("bounced", "5.7.30"),  # it does not offer REQUIRETLS
    }
    assert not world.peers["self"].messages
    assert not world.peers["pinned"].messages


def test_bounces_of_requiretls_mail_are_protected_alike_where_that_can_be(world: World) -> None:
    """RFC 8689 section 5: REQUIRETLS where it is offered; the header only; not discarded for want of it."""
    world.configuration.customers[-1]["senders"] = ["*"]
    world.peers["valid"].offers = ("REQUIRETLS",)
    world.engine.start()
    header = "X-Mailrail-Requires-TLS: yes\r\n"
    for sender in ("enforced", "testing"):
        world.send("none.plain", header=header, sender=f"news@{sender}.plain.example")
    for sender, host in (("enforced", "valid"), ("testing", "self")):
        assert world.event(f"{sender}.plain")["event"] == "delivered"
        peer = world.peers[host]
        ((is_tls, message),) = peer.messages
        assert is_tls
        assert b"5.7.10" in message
        assert b"Content-Type: text/rfc822-headers\r\n" in message
        assert peer.mails[0].startswith("MAIL FROM:<>")
        assert peer.mails[0].endswith(" REQUIRETLS") == (host == "valid")


def test_report_of_a_day_goes_out_by_mail_and_https(world: World) -> None:
    """RFC 8460: also to a host whose certificate nobody vouches for."""
    tally = Tally()
    tally.succeed("asks.plain.example", NO_POLICY)
    tally.succeed("none.plain.example", NO_POLICY)
    directory = world.configuration.data_dir / "shard-0"
    directory.mkdir(parents=True)
    day = day_of(time.time()) - 2
    (directory / f"tls-{day}.tally").write_bytes(tally.export())
    world.engine.start()
    wait_until(lambda: world.web.posted and world.peers["self"].messages, 30.0, "report")
    document = json.loads(gzip.decompress(world.web.posted[0]))
    assert document["policies"][0]["policy"]["policy-domain"] == "asks.plain.example"
    _, message = world.peers["self"].messages[0]
    assert b"TLS-Report-Domain: asks.plain.example\r\n" in message
    wait_until(lambda: not list(world.configuration.data_dir.glob("**/tls-*")), 10.0, "end of the day")
    assert len(world.web.posted) == 1
