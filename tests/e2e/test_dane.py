"""DANE through the whole engine: unbound with a zone that the test signs, and hosts of every kind.

Each domain NAME-mail has the host NAME; what a host must show is in its TLSA records.
"""

from __future__ import annotations

import contextlib
import hashlib
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.security.tally import import_tally
from tests.e2e.configuration import Configuration, free_port
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import make_message
from tests.fakes.authority import Authority
from tests.fakes.tls_peer import TlsPeer, serve_tls
from tests.fakes.unbound import serve_zones

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.stranger("unbound"),
]

NAMES = ("host", "domain", "real", "away", "late", "stray", "useless", "forged")
HOSTS = {name: f"127.0.9.{number}" for number, name in enumerate(NAMES, 41)}


def sha256(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


class World:
    """The hosts, their zone, and the engine."""

    def __init__(self, root: Path, stranger: Any, stack: contextlib.ExitStack) -> None:
        self.port = port = free_port(HOSTS["host"])
        ca, another = Authority("CA"), Authority("nobody", is_ca=False)
        certificates = {
            "host": ca.issue("host.signed.example"),
            "domain": ca.issue("domain-mail.signed.example"),
            "real": ca.issue("real.signed.example"),
            "away": Authority("away.plain.example", is_ca=False),
            "late": ca.issue("late.signed.example", days=-5),
            "stray": ca.issue("elsewhere.example"),
            "useless": Authority("useless.signed.example", is_ca=False),
            "forged": another,
        }
        self.peers: dict[str, TlsPeer] = {}
        self.named: dict[str, list[str | None]] = {name: [] for name in NAMES}
        for name, certificate in certificates.items():
            peer = self.peers[name] = TlsPeer(certificate.write(root / f"{name}.pem"))
            assert peer.context is not None
            peer.context.sni_callback = lambda _, asked, __, name=name: self.named[name].append(asked)
            stack.enter_context(serve_tls(peer, HOSTS[name], port))
        anchor, key = f"2 0 1 {sha256(ca.der)}", f"3 1 1 {sha256(another.key_der)}"
        records = {
            "host": anchor,
            "domain": anchor,
            "real": anchor,
            "away": key,  # which it has not
            "late": anchor,
            "stray": anchor,
            "useless": f"1 1 1 {sha256(another.key_der)}",
            "forged": key,
        }
        zone = "".join(
            f"{name}-mail MX 10 {name}\n_{port}._tcp.{name} TLSA {record}\n"
            for name, record in records.items()
        )
        zone += "".join(f"{name} A {address}\n" for name, address in HOSTS.items() if name != "away")
        zone += "alias-mail MX 10 alias\nalias CNAME real\naway CNAME away.plain.example.\n"
        zone += "shared-mail MX 10 host\nother-mail MX 10 domain\nentry CNAME domain-mail\n"
        zones = {"signed.example": zone, "plain.example": f"away A {HOSTS['away']}\n"}
        signed = ["signed.example"]
        dns_port = stack.enter_context(serve_zones(stranger, root, zones, signed=signed, tamper=self.forge))
        self.configuration = Configuration(root)
        self.configuration.engine |= {
            "shards": 1,
            "validating_resolver": f"127.0.0.1:{dns_port}",
            "prohibited_networks": [],
            "tls_report_from": "tls@acme.example",
        }
        self.configuration.policies = f'[default]\nport = {port}\nretry = ["1h"]\n'
        self.configuration.add_customer("acme", "127.0.1.1")
        self.smtp_port = self.configuration.add_smtp(customer="acme")
        self.engine = EngineProcess(self.configuration)
        stack.callback(self.engine.close)

    def forge(self, zone: str) -> str:
        """Change the signed records of one host: they are bogus."""
        lines = zone.splitlines()
        for at, line in enumerate(lines):
            if line.startswith(f"_{self.port}._tcp.forged.") and "\tTLSA\t" in line and "RRSIG" not in line:
                lines[at] = line.replace(line.rsplit(None, 1)[1], "00" * 32)
        return "\n".join(lines) + "\n"

    def send(self, domain: str) -> dict[str, Any]:
        """Return the first disposition of a message to that domain."""
        recipient = f"u@{domain}.signed.example"
        with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=30) as session:
            message = make_message("news@acme.example", recipient, domain)
            session.sendmail("news@acme.example", [recipient], message)

        def first() -> Any:
            found = self.engine.events_of("delivered", "deferred", "bounced")
            return next((event for event in found if event["recipient"] == recipient), None)

        return wait_until(first, 20.0, f"disposition of {domain}; log:\n{self.engine.log_tail()}")


@pytest.fixture
def world(root: Path, stranger: Any) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(root, stranger, stack)


def test_each_host_is_met_as_its_records_say(world: World) -> None:
    """RFC 7672 sections 2.1.2, 2.2.2, 3.2.2 and 8.1; RFC 8460 section 4.3."""
    world.engine.start()
    domains = ["host-mail", "shared-mail", "domain-mail", "other-mail", "entry", "alias-mail", "away-mail"]
    domains += ["late-mail", "stray-mail", "useless-mail", "forged-mail"]
    told = {domain: world.send(domain) for domain in domains}
    assert {domain: event["event"] for domain, event in told.items()} == {
        "host-mail": "delivered",
        "shared-mail": "delivered",
        "domain-mail": "delivered",  # the certificate names the domain whose mail it is
        "other-mail": "deferred",  # and no other one, although the host is the same
        "entry": "delivered",  # an alias of the domain that it names
        "alias-mail": "delivered",
        "away-mail": "deferred",  # its records stand below the alias, which is signed
        "late-mail": "deferred",
        "stray-mail": "deferred",
        "useless-mail": "delivered",
        "forged-mail": "deferred",
    }
    assert told["useless-mail"]["tls_verification"] != "dane"
    assert {told[each]["tls_verification"] for each in ("host-mail", "domain-mail", "alias-mail")} == {"dane"}
    assert world.named["real"] == ["real.signed.example"]
    assert "not valid at this time" in told["late-mail"]["reply"]["text"]
    assert "is for none of" in told["stray-mail"]["reply"]["text"]
    assert not world.peers["forged"].lines  # not even asked
    assert "SERVFAIL" in told["forged-mail"]["reply"]["text"]

    world.engine.stop()
    assert counted(world, "late-mail") == {"certificate-expired"}
    assert counted(world, "stray-mail") == {"certificate-host-mismatch"}
    assert counted(world, "useless-mail") == {"tlsa-invalid"}
    assert counted(world, "forged-mail") == {"dnssec-invalid"}
    assert counted(world, "domain-mail") == set()


def counted(world: World, domain: str) -> set[str]:
    """Return the result types that were counted for a domain."""
    (file,) = world.configuration.data_dir.glob("**/tls-*.tally")
    of_domain = import_tally(file.read_bytes()).of(f"{domain}.signed.example")
    return {facts.result for counts in of_domain.values() for facts, _ in counts.kinds}
