"""All policies of one generation: layers folded into the policy of a path, cached.

Owns: the order of the layers, and what a destination is.
Never: changes after it was built; a reload builds a new one.
Hot: `effective` and `destination` are asked for every message; a hit is one dict look-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from engine.policy.classify import Classifier, make_classifier
from engine.policy.fields import POLICY
from engine.policy.layers import Layers, Scope, Section, Setting
from engine.policy.match import ProviderMatcher
from engine.policy.model import Destination, Policy
from engine.policy.on_reply import arrange
from engine.policy.rule_search import RuleSearch, search_of

# Domains are chosen by whoever writes to us, so what is kept per domain has a bound: 20,000 entries
# are about 8 MB. When it is reached, everything is forgotten and found again.
_MAX_CACHED = 20_000


class Applied(NamedTuple):
    """A setting that a layer has for a path; the last one of a key is in force."""

    layer: str  # the section's header
    setting: Setting


class PolicySet:
    """Answers which policy holds for (destination, customer, vmta)."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.matcher = ProviderMatcher(layers.base.providers)
        self.categories = layers.classify.table()
        self.reply_rules = arrange(section.reply_rules for section in layers.base.all())
        self._searches: dict[tuple[str, str], RuleSearch] = {}
        self._named_domains = frozenset(domain for scope in layers.scopes() for domain in scope.domains)
        self._destinations: dict[tuple[str, str], Destination] = {}
        self._policies: dict[tuple[str, str, str, str], Policy] = {}

    @cached_property
    def classifier(self) -> Classifier:
        """What finds the category of a reply; compiled when it is first asked for."""
        return make_classifier(self.layers.classify.in_order())

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of all providers."""
        return tuple(self.layers.base.providers)

    def rules_for(self, destination: Destination) -> RuleSearch:
        """Return the rules for replies of a destination; HOT on a hit."""
        key = (destination.provider, destination.domain)
        found = self._searches.get(key)
        if found is None:
            if len(self._searches) >= _MAX_CACHED:
                self._searches.clear()
            applying = [each.header for each in self.layers.base.applying(*key)]
            found = self._searches[key] = search_of(self.reply_rules, applying[::-1])
        return found

    def destination(self, domain: str, site: str, hosts: tuple[str, ...]) -> Destination:
        """Return what limits apply to.

        Args:
            domain: recipient domain, A-labels in lower case.
            site: canonical name of where its mail goes.
            hosts: its MX hosts in lower case; empty where a route holds.
        """
        found = self._destinations.get((domain, site))
        if found is None:
            if len(self._destinations) >= _MAX_CACHED:
                self._destinations.clear()
            found = self._destinations[domain, site] = self.find_destination(domain, site, hosts)
        return found

    def effective(self, destination: Destination, customer: str = "", vmta: str = "") -> Policy:
        """Return the policy of a path; "" for a customer or vmta that is not known yet."""
        customer = customer if customer in self.layers.customers else ""
        vmta = vmta if vmta in self.layers.vmtas else ""
        key = (destination.provider, destination.domain, customer, vmta)
        found = self._policies.get(key)
        if found is None:
            if len(self._policies) >= _MAX_CACHED:
                self._policies.clear()
            found = self._policies[key] = self._fold(destination, customer, vmta)
        return found

    def sections_for(self, customer: str, destination: Destination) -> bool:
        """Return whether a section of the customer changes anything for the destination."""
        scope = self.layers.customers.get(customer)
        return scope is not None and any(
            section.settings for section in scope.applying(destination.provider, destination.domain)
        )

    def trace(self, destination: Destination, customer: str = "", vmta: str = "") -> dict[str, list[Applied]]:
        """Return for each key every layer that sets it, weakest first: the last is in force."""
        found: dict[str, list[Applied]] = {key: [] for key in POLICY}
        for section in self._applying(destination, customer, vmta):
            for key, setting in section.settings.items():
                found[key].append(Applied(section.header, setting))
        return found

    def find_destination(self, domain: str, site: str, hosts: tuple[str, ...]) -> Destination:
        """Return what `destination` does, and keep nothing: for one of very many domains."""
        provider = self.matcher.provider_of(domain, hosts)
        if domain in self._named_domains:
            return Destination(domain, "domain", provider, domain)
        if provider:
            return Destination(provider, "provider", provider, "")
        return Destination(site, "site", "", "")

    def _fold(self, destination: Destination, customer: str, vmta: str) -> Policy:
        values: dict[str, Any] = {}
        for section in self._applying(destination, customer, vmta):
            for key, setting in section.settings.items():
                values[POLICY[key].attribute] = setting.value
        rate = values["max_message_rate"]
        if rate is not None:  # a burst is part of what the window holds
            values["burst"] = min(values["burst"], rate.count)
        return Policy(**values)

    def _applying(self, destination: Destination, customer: str, vmta: str) -> Iterator[Section]:
        for scope in self._scopes(customer, vmta):
            yield from scope.applying(destination.provider, destination.domain)

    def _scopes(self, customer: str, vmta: str) -> Iterator[Scope]:
        yield self.layers.base
        if customer in self.layers.customers:
            yield self.layers.customers[customer]
        if vmta in self.layers.vmtas:
            yield self.layers.vmtas[vmta]
