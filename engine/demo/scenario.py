"""The cast of the demo: customers with their vmtas, destinations with their limits, and the volumes.

Limits are counted per path, so a customer with four vmtas can send four times a path's allowance. Each
customer's mail for each destination is just what its paths may carry in the same time: every destination
has backlog nearly to the end, and all end together.

Owns: every name, address and limit of the demo.
Never: starts anything; paths on disk and ports come later (stage).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from engine.core.units import Rate

# Size of a message's body in bytes, and its weight: notices, letters, newsletters, attachments.
SIZES = {2_000: 40, 8_000: 35, 25_000: 20, 100_000: 5}

# Fewer end before every limit has bound for two of its windows: 3,000 only just do, 2,000 do not.
MIN_MESSAGES = 4_000
MAX_MESSAGES = 1_000_000  # all are on record, and last 40 minutes


class VirtualMTA(NamedTuple):
    """A source address and what it says in EHLO."""

    name: str
    source: str
    hostname: str


class Customer(NamedTuple):
    """Whose mail it is, how it comes in, and from where it must leave."""

    name: str
    feed: str  # smtp | socket | spool
    sender: str
    subjects: tuple[str, ...]
    vmtas: tuple[VirtualMTA, ...]


class Destination(NamedTuple):
    """What limits apply to. `rate` None: the connections are what binds."""

    name: str
    is_provider: bool
    hosts: Mapping[str, str]  # recipient domain -> the sink's address for it
    max_connections: int
    rate: Rate | None
    latency_s: float  # from end-of-message to the sink's reply

    @property
    def per_path_per_s(self) -> float:
        """What one path may carry: by its rate, or by what its connections can do at that latency."""
        if self.rate is not None:
            return self.rate.per_s
        return self.max_connections / self.latency_s


class Scenario:
    """Who sends how much to whom, with the look-ups that its readers need."""

    def __init__(
        self, customers: Sequence[Customer], destinations: Sequence[Destination], messages: int
    ) -> None:
        self.customers = tuple(customers)
        self.destinations = tuple(destinations)
        self.messages = messages

    @cached_property
    def vmta_at(self) -> dict[str, VirtualMTA]:
        """The vmta of each source address."""
        return {vmta.source: vmta for customer in self.customers for vmta in customer.vmtas}

    @cached_property
    def customer_at(self) -> dict[str, Customer]:
        """Whose each source address is."""
        return {vmta.source: customer for customer in self.customers for vmta in customer.vmtas}

    @cached_property
    def destination_of(self) -> dict[str, Destination]:
        """The destination of each recipient domain."""
        return {domain: each for each in self.destinations for domain in each.hosts}

    @cached_property
    def destination_named(self) -> dict[str, Destination]:
        """The destinations by name."""
        return {each.name: each for each in self.destinations}

    @cached_property
    def host_of(self) -> dict[str, str]:
        """The sink's address for each recipient domain."""
        return {domain: host for each in self.destinations for domain, host in each.hosts.items()}

    @cached_property
    def destination_at(self) -> dict[str, Destination]:
        """The destination that receives at each of the sinks' addresses."""
        return {host: each for each in self.destinations for host in each.hosts.values()}

    @cached_property
    def volumes(self) -> dict[tuple[str, str], int]:
        """Messages by (customer, destination): in proportion to what the paths may carry, no remainder."""
        exact = {
            (customer.name, each.name): len(customer.vmtas) * each.per_path_per_s
            for customer in self.customers
            for each in self.destinations
        }
        scale = self.messages / sum(exact.values())
        volumes = {key: int(share * scale) for key, share in exact.items()}
        by_remainder = sorted(exact, key=lambda key: volumes[key] - exact[key] * scale)
        for key in by_remainder[: self.messages - sum(volumes.values())]:
            volumes[key] += 1
        return volumes

    @property
    def expected_s(self) -> float:
        """How long the limits make it last at least."""
        vmtas = len(self.vmta_at)
        return self.messages / (vmtas * sum(each.per_path_per_s for each in self.destinations))


def make_scenario(messages: int) -> Scenario:
    """Return the demo's scenario with so many messages."""
    return Scenario(_CUSTOMERS, _DESTINATIONS, messages)


def _make_customer(name: str, feed: str, network: int, vmtas: int, subjects: tuple[str, ...]) -> Customer:
    domain = f"{name}.example"
    return Customer(
        name,
        feed,
        f"news@{domain}",
        subjects,
        tuple(
            VirtualMTA(f"{name}-{number}", f"127.0.{network}.{number}", f"mail{number}.{domain}")
            for number in range(1, vmtas + 1)
        ),
    )


def _make_domain(
    domain: str, address: str, max_connections: int, rate: Rate | None, *, latency_s: float
) -> Destination:
    """Return a destination that is one domain at one address."""
    return Destination(domain, False, {domain: address}, max_connections, rate, latency_s)


_CUSTOMERS = (
    _make_customer("acme", "smtp", 11, 4, ("Your order has been shipped", "Your invoice is ready")),
    _make_customer("globex", "smtp", 12, 3, ("This week at Globex", "Prices that you will like")),
    _make_customer("initech", "socket", 13, 3, ("Reset your password", "A new sign-in to your account")),
    _make_customer("umbrella", "spool", 14, 2, ("Your appointment is tomorrow", "Your results have arrived")),
)

# Five receivers, each with a limit of its own that binds: three by rate, two by connections.
_DESTINATIONS = (
    Destination(
        "bigmail",
        True,
        {"bigmail.example": "127.0.21.1", "livebig.example": "127.0.21.2"},
        max_connections=4,
        rate=Rate(10, 1.0),
        latency_s=0.05,
    ),
    _make_domain("freemail.example", "127.0.22.1", 3, Rate(14, 2.0), latency_s=0.05),
    _make_domain("postbox.example", "127.0.23.1", 2, Rate(25, 5.0), latency_s=0.05),
    _make_domain("slowcorp.example", "127.0.24.1", 3, None, latency_s=0.4),
    _make_domain("campus.example", "127.0.25.1", 2, None, latency_s=0.4),
)
