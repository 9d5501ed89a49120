"""Two domains of one provider whose hosts take only their own mail, under one connection for both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.configuration import Configuration, free_port
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import addresses, inject
from tests.e2e.judging import copies, peak_connections
from tests.e2e.sink_process import SinkProcess
from tests.fakes.dns import FakeDNS, serve_names

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(60)]

MAIL_HOSTS = {"left.example": "127.0.9.1", "right.example": "127.0.9.2"}
EACH = 150


@pytest.fixture
def provider_sink(root: Path) -> Iterator[SinkProcess]:
    """Hosts that refuse each other's recipients."""
    process = SinkProcess(root, free_port("127.0.9.1"), *MAIL_HOSTS.values())
    rules = [
        {"at": "rcpt", "domain": domain, "listen": listen, "reply": "550 5.7.1 relaying denied"}
        for domain in MAIL_HOSTS
        for other, listen in MAIL_HOSTS.items()
        if other != domain
    ]
    yield process.start(rules)
    process.close()


@pytest.fixture
def name_server() -> Iterator[FakeDNS]:
    """Each domain has an MX host of its own, both of one provider."""
    script = {
        (domain, "MX"): [f"10 {domain.partition('.')[0]}.mx.provider.example."] for domain in MAIL_HOSTS
    } | {
        (f"{domain.partition('.')[0]}.mx.provider.example", "A"): [address]
        for domain, address in MAIL_HOSTS.items()
    }
    with serve_names(script) as server:
        yield server


def test_mail_of_two_sites_of_one_provider_never_crosses(
    root: Path, provider_sink: SinkProcess, name_server: FakeDNS
) -> None:
    configuration = Configuration(root)
    configuration.engine |= {
        "shards": 1,
        "nameservers": ["127.0.0.1"],
        "dns_port": name_server.port,
        "prohibited_networks": [],
    }
    configuration.policies = (
        "[default]\n"
        'max_message_rate = "unlimited"\nmax_connection_rate = "unlimited"\n'
        f"port = {provider_sink.port}\n"
        "[provider.both]\n"
        'mx = ["*.mx.provider.example"]\nmx_samples = ["left.mx.provider.example"]\nmax_connections = 1\n'
    )
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    engine = EngineProcess(configuration)
    try:
        engine.start()
        sent = inject(port, "news@acme.example", addresses(2 * EACH, *MAIL_HOSTS))
        provider_sink.wait_messages(2 * EACH, 40)
        wait_until(lambda: len(engine.events_of("delivered")) == 2 * EACH, 10, "final events")
        assert not engine.events_of("bounced", "deferred")
        assert {event["destination"] for event in engine.events_of("delivered")} == {"both"}
        assert engine.stop() == 0
    finally:
        engine.close()
    assert name_server.count("left.example", "MX") == 1
    assert sorted(test_id for test_id, _ in copies(provider_sink.arrivals())) == sorted(sent)
    # max_connections counts for the provider: both hosts together.
    together = [link._replace(listen="provider") for link in provider_sink.links()]
    assert peak_connections(together) == {("provider", "127.0.1.1"): 1}
