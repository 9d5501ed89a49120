"""The configuration that the scenario means: mailrail.toml and one file of policies.

Owns: the text of both.
Never: chooses a path or a port; `Places` brings them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from engine.core.units import format_rate
from engine.demo.scenario import Customer, Destination, Scenario

SHARDS = 2


class Places(NamedTuple):
    """Where this run of the demo lives."""

    root: Path  # throw-away
    sink_port: int
    admin_port: int
    smtp_ports: Mapping[str, int]  # by customer

    @property
    def config(self) -> Path:
        return self.root / "mailrail.toml"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def policies(self) -> Path:
        return self.root / "policies"

    def socket(self, customer: Customer) -> Path:
        """Return the injection socket of a customer."""
        return self.root / f"{customer.name}.sock"

    def spool(self, customer: Customer) -> Path:
        """Return the spool directory of a customer."""
        return self.root / f"{customer.name}-spool"


def format_settings(scenario: Scenario, places: Places) -> str:
    """Return mailrail.toml."""
    parts = [
        f"""\
# Written by `mailrail demo`.
[engine]
hostname = "mta1.demo.example"
data_dir = "{places.data}"
shards = {SHARDS}
policies = ["{places.policies}"]
postmaster = "postmaster@demo.example"

[admin]
listen = "127.0.0.1:{places.admin_port}"
""",
        *(_format_customer(customer, places) for customer in scenario.customers),
        _format_routes(scenario, places),
    ]
    return "\n".join(parts)


def _format_customer(customer: Customer, places: Places) -> str:
    members = ", ".join(f'"{vmta.name}" = 1' for vmta in customer.vmtas)
    vmtas = "".join(
        f'[[vmta]]\nname = "{vmta.name}"\nsource = "{vmta.source}"\nhostname = "{vmta.hostname}"\n\n'
        for vmta in customer.vmtas
    )
    domain = customer.sender.partition("@")[2]
    return f"""\
[[customer]]
name = "{customer.name}"
pool = "{customer.name}"
senders = ["*@{domain}"]

[[pool]]
name = "{customer.name}"
members = {{ {members} }}

{vmtas}[[listener]]
protocol = "{customer.feed}"
{_format_listener(customer, places)}
customer = "{customer.name}"
"""


def _format_listener(customer: Customer, places: Places) -> str:
    if customer.feed == "smtp":
        return f'listen = "127.0.0.1:{places.smtp_ports[customer.name]}"'
    path = places.socket(customer) if customer.feed == "socket" else places.spool(customer)
    return f'path = "{path}"'


def _format_routes(scenario: Scenario, places: Places) -> str:
    routes = [
        f'"{domain}" = "{address}:{places.sink_port}"\n'
        for destination in scenario.destinations
        for domain, address in destination.hosts.items()
    ]
    return "[routes]\n" + "".join(routes)


def format_policies(scenario: Scenario) -> str:
    """Return the policies over the shipped ones: nothing but limits."""
    parts = ["# Written by `mailrail demo`: five destinations, each with a limit that binds.\n"]
    return "\n".join(parts + [_format_policy(destination) for destination in scenario.destinations])


def _format_policy(destination: Destination) -> str:
    name = f"provider.{destination.name}" if destination.is_provider else f'domain."{destination.name}"'
    domains = ", ".join(f'"{domain}"' for domain in destination.hosts)
    lines = [f"[{name}]", f"domains = [{domains}]" if destination.is_provider else ""]
    lines.append(f"max_connections = {destination.max_connections}")
    rate = format_rate(destination.rate) if destination.rate else "unlimited"
    lines.append(f'max_message_rate = "{rate}"')
    return "\n".join(line for line in lines if line) + "\n"
