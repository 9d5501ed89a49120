"""The messages of the demo, customer by customer, in an order that is the same in each run.

Owns: how sizes, subjects and recipients are dealt. Ids are "customer-number".
Never: writes a file (rig.job does).
"""

from __future__ import annotations

import random

from engine.demo.scenario import SIZES, Customer, Scenario
from engine.rig.job import Planned


def deal_messages(scenario: Scenario, customer: Customer) -> list[Planned]:
    """Return what a customer sends: its volume for each destination, shuffled."""
    chance = random.Random(customer.name)
    domains = [
        domain
        for destination in scenario.destinations
        for domain in _share(list(destination.hosts), scenario.volumes[customer.name, destination.name])
    ]
    chance.shuffle(domains)
    sizes = chance.choices(list(SIZES), list(SIZES.values()), k=len(domains))
    return [
        Planned(
            f"{customer.name}-{number}",
            customer.sender,
            [f"user{number}@{domain}"],
            size,
            customer.subjects[number % len(customer.subjects)],
        )
        for number, (domain, size) in enumerate(zip(domains, sizes, strict=True))
    ]


def _share(domains: list[str], messages: int) -> list[str]:
    """Deal messages over the domains of a destination in turn."""
    return [domains[number % len(domains)] for number in range(messages)]
