"""What `mailrail check` finds in policies that parse but can't do what they say.

Providers and rules for replies have modules of their own: what can't fire is how shipped data rots unseen.

Never: refuses anything; parse does that. Looks nothing up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from engine.core.finding import Finding
from engine.core.units import format_duration, format_rate
from engine.policy.check_providers import check_providers
from engine.policy.check_replies import check_replies
from engine.policy.check_rules import check_rules
from engine.policy.fold import Applied, PolicySet
from engine.policy.layers import Section
from engine.policy.model import Destination


def check_policies(policies: PolicySet) -> list[Finding]:
    """Return everything that looks wrong, in the order of file and line."""
    found = [*check_providers(policies), *check_rules(policies)]
    for scope in policies.layers.scopes():
        for section in scope.all():
            found += _check_section(section)
    found += _check_values(policies)
    found += check_replies(policies)
    return sorted(set(found), key=lambda finding: (finding.origin, finding.text))


def _check_section(section: Section) -> Iterator[Finding]:
    if not section.settings and not section.attributes and not section.reply_rules:
        yield Finding("warning", section.origin, f"{section.header}: empty, so it changes nothing")


def _check_values(policies: PolicySet) -> Iterator[Finding]:
    """Look at what comes out of the fold wherever a section can change it."""
    for customer, vmta, destination in _foldings(policies):
        policy = policies.effective(destination, customer, vmta)
        trace = policies.trace(destination, customer, vmta)
        burst = trace["burst"][-1]
        rate = policy.max_message_rate
        if rate is not None and burst.setting.value > rate.count:
            detail = f"burst {burst.setting.value} is more than {format_rate(rate)} allows"
            yield _conflict(
                policies, burst, trace["max_message_rate"][-1], f"{detail}; it counts as {rate.count}"
            )
        if policy.retry_s[0] >= policy.expire_after_s:
            detail = (
                f"the first retry comes after expire_after {format_duration(policy.expire_after_s)}: none"
            )
            yield _conflict(policies, trace["retry"][-1], trace["expire_after"][-1], detail)


def _conflict(policies: PolicySet, one: Applied, other: Applied, detail: str) -> Finding:
    """Return a warning of two settings that do not go together, at the one that the operator has written."""
    if _ships(policies, one) and not _ships(policies, other):
        one, other = other, one
    return Finding(
        "warning", one.setting.origin, f"{one.layer}: {detail} ({other.layer}, {other.setting.origin})"
    )


def _ships(policies: PolicySet, applied: Applied) -> bool:
    default = policies.layers.base.default
    assert default is not None, "parse has seen that every key has a default"
    return PurePath(applied.setting.origin.file).parent == PurePath(default.origin.file).parent


def _foldings(policies: PolicySet) -> Iterator[tuple[str, str, Destination]]:
    layers = policies.layers
    owners = [("", "", layers.base)]
    owners += [(customer, "", scope) for customer, scope in layers.customers.items()]
    owners += [("", vmta, scope) for vmta, scope in layers.vmtas.items()]
    for customer, vmta, scope in owners:
        yield customer, vmta, Destination("", "site", "", "")
        for provider in scope.providers:
            yield customer, vmta, Destination(provider, "provider", provider, "")
        for domain in scope.domains:
            yield (
                customer,
                vmta,
                Destination(domain, "domain", policies.matcher.provider_of(domain, ()), domain),
            )
