"""IPv6 sources, in a network namespace of the test's own: no address of this host is touched.

The thread that runs the test enters the namespace, and all that it starts inherits it: engine, sink, name
server. The namespace is gone with the last of them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.configuration import SINK_ADDRESS, Configuration, free_port
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import addresses, inject
from tests.e2e.sink_process import SinkProcess
from tests.fakes.dns import FakeDNS, serve_names
from tests.lacking import lack, need_root

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(30)]

Run = Callable[..., EngineProcess]

CLONE_NEWNET = 0x40000000  # linux/sched.h
SOURCES = ("fd00:1::10", "fd00:1::11", "fd00:1::12")
SINK_V6 = "fd00:9::1"
CLOSED_V6 = "fd00:9::2"  # an address at which nobody listens
NO_ROUTE_V6 = "fd00:bad::1"  # an address to which there is no route
MAIL_HOST = "mx.provider.example"


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    """A network namespace with a loopback interface that has the addresses above."""
    need_root("make a network namespace")
    if not shutil.which("ip"):
        lack("needs the program ip, of the Debian package iproute2")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET):
            lack(f"no network namespace here: {os.strerror(ctypes.get_errno())}")
        try:
            _ip("link", "set", "lo", "up")
            for address in (*SOURCES, SINK_V6, CLOSED_V6):
                _ip("-6", "addr", "add", f"{address}/128", "dev", "lo", "nodad")
            yield
        finally:
            assert libc.setns(before, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(before)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        lack(f"no IPv6 here: ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def sink(root: Path, namespace: None) -> Iterator[SinkProcess]:
    """A sink on an IPv4 and an IPv6 address, not started."""
    process = SinkProcess(root, free_port(SINK_ADDRESS), SINK_ADDRESS, f"[{SINK_V6}]")
    yield process
    process.close()


def route_by_family(configuration: Configuration, sink: SinkProcess) -> None:
    """Make one domain that has IPv4 only, and one that has IPv6 only."""
    configuration.routes |= {
        "four.example": f"{SINK_ADDRESS}:{sink.port}",
        "six.example": f"[{SINK_V6}]:{sink.port}",
    }


def add_dual(configuration: Configuration) -> int:
    """Add a customer whose one vmta has a source of each family; return the port of its listener."""
    configuration.vmtas.append(
        {"name": "acme-1", "source": ["127.0.1.1", SOURCES[0]], "hostname": "mail1.acme.example"}
    )
    configuration.pools["acme"] = {"acme-1": 1}
    configuration.customers.append({"name": "acme", "pool": "acme", "senders": ["*@acme.example"]})
    return configuration.add_smtp(customer="acme")


def use_names(configuration: Configuration, server: FakeDNS, sink: SinkProcess) -> None:
    """Find hosts by the name server and not by routes; these networks may be connected to."""
    configuration.routes = {}
    configuration.policies += f"port = {sink.port}\n"
    configuration.engine |= {
        "nameservers": ["127.0.0.1"],
        "dns_port": server.port,
        "prohibited_networks": [],
    }


def wait_delivered(engine: EngineProcess, count: int) -> list[dict]:
    """Wait for so many `delivered` events."""

    def delivered() -> list[dict]:
        found = engine.events_of("delivered")
        return found if len(found) >= count else []

    return wait_until(delivered, 15, f"{count} delivered; the log ends:\n{engine.log_tail()}")


def test_each_ipv6_source_sends_under_its_own_name(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    configuration.routes["*"] = f"[{SINK_V6}]:{sink.port}"
    configuration.add_customer("acme", *SOURCES[:2])
    configuration.add_customer("globex", SOURCES[2])
    ports = {name: configuration.add_smtp(customer=name) for name in ("acme", "globex")}
    names = {
        SOURCES[0]: "mail1.acme.example",
        SOURCES[1]: "mail2.acme.example",
        SOURCES[2]: "mail1.globex.example",
    }
    sink.start()
    engine = run_engine()
    sent = {}
    for name, port in ports.items():
        for recipient in addresses(30, "one.example", "two.example"):
            sent |= dict.fromkeys(inject(port, f"news@{name}.example", [recipient]), name)
    sink.wait_messages(60)
    arrivals = sink.arrivals()
    assert sorted(arrival.id for arrival in arrivals) == sorted(sent)
    for arrival in arrivals:
        assert arrival.listen == SINK_V6
        assert arrival.ehlo == names[arrival.source]
        assert arrival.ehlo.endswith(f".{sent[arrival.id]}.example")
    assert {arrival.source for arrival in arrivals} == set(SOURCES)
    for event in wait_delivered(engine, 60):
        assert event["hostname"] == names[event["source"]]
        assert event["peer"]["address"] == SINK_V6
    assert not engine.events_of("deferred", "bounced")
    assert engine.stop() == 0


def test_a_vmta_with_both_families_sends_from_that_of_its_destination(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    route_by_family(configuration, sink)
    port = add_dual(configuration)
    sink.start()
    engine = run_engine()
    inject(port, "news@acme.example", addresses(20, "four.example", "six.example"))
    sink.wait_messages(20)
    found = {
        (arrival.recipients[0].partition("@")[2], arrival.source, arrival.listen, arrival.ehlo)
        for arrival in sink.arrivals()
    }
    assert found == {
        ("four.example", "127.0.1.1", SINK_ADDRESS, "mail1.acme.example"),
        ("six.example", SOURCES[0], SINK_V6, "mail1.acme.example"),
    }
    assert engine.stop() == 0


def test_mail_of_a_vmta_without_ipv4_waits_where_there_is_ipv4_only(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    route_by_family(configuration, sink)
    configuration.add_customer("acme", SOURCES[0])
    port = configuration.add_smtp(customer="acme")
    sink.start()
    engine = run_engine()
    inject(port, "news@acme.example", ["someone@four.example", "someone@six.example"])
    wait_delivered(engine, 1)
    (event,) = wait_until(lambda: engine.events_of("deferred"), 10, "mail for four.example is deferred")
    assert event["recipient"] == "someone@four.example"
    assert event["reply"]["code"] == 451
    assert [arrival.recipients for arrival in sink.arrivals()] == [("someone@six.example",)]
    assert {link.source for link in sink.links()} == {SOURCES[0]}
    assert engine.stop() == 0


@pytest.mark.parametrize(
    ("address_family", "v6_addresses", "expected"),
    [
        ("prefer_v6", [SINK_V6], (SOURCES[0], SINK_V6)),
        ("prefer_v6", [CLOSED_V6], ("127.0.1.1", SINK_ADDRESS)),
        ("prefer_v6", [NO_ROUTE_V6], ("127.0.1.1", SINK_ADDRESS)),
        ("prefer_v6", [], ("127.0.1.1", SINK_ADDRESS)),
        ("prefer_v4", [SINK_V6], ("127.0.1.1", SINK_ADDRESS)),
        ("v6", [SINK_V6], (SOURCES[0], SINK_V6)),
    ],
    ids=["both", "v6-closed", "v6-without-route", "v4-only", "prefer-v4", "v6-demanded"],
)
def test_the_preferred_family_is_tried_first_and_the_other_next(
    configuration: Configuration,
    sink: SinkProcess,
    run_engine: Run,
    address_family: str,
    v6_addresses: list[str],
    expected: tuple[str, str],
) -> None:
    """RFC 5321 section 5.2: addresses of one MX host; the first try already delivers, nothing is deferred."""
    script = {
        ("one.example", "MX"): [f"10 {MAIL_HOST}."],
        (MAIL_HOST, "A"): [SINK_ADDRESS],
        (MAIL_HOST, "AAAA"): v6_addresses,
    }
    configuration.policies += f'address_family = "{address_family}"\n'
    port = add_dual(configuration)
    sink.start()
    with serve_names(script) as server:
        use_names(configuration, server, sink)
        engine = run_engine()
        inject(port, "news@acme.example", addresses(5, "one.example"))
        delivered = wait_delivered(engine, 5)
        assert engine.stop() == 0
    assert {(arrival.source, arrival.listen) for arrival in sink.arrivals()} == {expected}
    assert {(event["source"], event["attempt"]) for event in delivered} == {(expected[0], 1)}
    assert {arrival.ehlo for arrival in sink.arrivals()} == {"mail1.acme.example"}
    assert not engine.events_of("deferred", "bounced")


def test_mail_for_an_ipv6_literal_goes_to_that_address(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    """RFC 5321 section 4.1.3."""
    port = add_dual(configuration)
    sink.start()
    with serve_names({}) as server:
        use_names(configuration, server, sink)
        engine = run_engine()
        inject(port, "news@acme.example", [f"someone@[IPv6:{SINK_V6}]"])
        wait_delivered(engine, 1)
        assert engine.stop() == 0
    (arrival,) = sink.arrivals()
    assert (arrival.source, arrival.listen) == (SOURCES[0], SINK_V6)
