"""What `mailrail check` finds in policies that parse but can't do what they say.

A provider must get each of its sample MX hosts, no two may claim one, and a reply rule must match
its own samples: rules that can't fire are how shipped data rots unseen.

Never: refuses anything; parse does that. Looks nothing up.
"""

from __future__ import annotations

from collections.abc import Iterator

import re2

from engine.core.fields import show
from engine.core.finding import Finding
from engine.core.units import format_duration, format_rate
from engine.policy.fold import PolicySet
from engine.policy.layers import ReplyRule, Section
from engine.policy.match import PatternIndex
from engine.policy.model import Destination


def check_policies(policies: PolicySet) -> list[Finding]:
    """Return everything that looks wrong, in the order of file and line."""
    found: list[Finding] = []
    for name, section in policies.layers.base.providers.items():
        found += _check_samples(policies, name, section)
        found += _check_patterns(section)
        found += _check_domains(policies, name, section)
    for scope in policies.layers.scopes():
        for section in scope.all():
            found += _check_section(section)
    found += _check_values(policies)
    return sorted(set(found), key=lambda finding: (finding.origin, finding.text))


def _check_samples(policies: PolicySet, name: str, section: Section) -> Iterator[Finding]:
    if "mx" not in section.attributes:
        return
    samples = section.attributes.get("mx_samples")
    if samples is None:
        yield Finding(
            "error", section.origin, f"{section.header}: mx without mx_samples: nothing shows that it fires"
        )
        return
    for host in samples.value:
        claims = policies.matcher.claims_host(host)
        rivals = [other for other in claims if other != name and claims[other] >= claims.get(name, 0)]
        if name not in claims:
            yield Finding(
                "error", samples.origin, f"{section.header}: no pattern of mx matches the sample {host!r}"
            )
        elif rivals:
            detail = f"{section.header}: the sample {host!r} is claimed by [provider.{rivals[0]}] too"
            yield Finding("error", samples.origin, detail)


def _check_patterns(section: Section) -> Iterator[Finding]:
    """A pattern without a sample may be as good as absent: nobody would notice."""
    patterns, samples = section.attributes.get("mx"), section.attributes.get("mx_samples")
    if patterns is None or samples is None:
        return
    for pattern in patterns.value:
        index = PatternIndex()
        index.add(pattern, pattern)
        if not any(index.find(host) for host in samples.value):
            yield Finding(
                "warning", patterns.origin, f"{section.header}: no sample for the pattern {pattern!r}"
            )


def _check_domains(policies: PolicySet, name: str, section: Section) -> Iterator[Finding]:
    setting = section.attributes.get("domains")
    for domain in setting.value if setting else ():
        plain = domain.removeprefix("*.")
        claims = policies.matcher.claims_domain(plain)
        rivals = [
            other for other in claims if other != name and claims[other] >= claims.get(name, len(plain))
        ]
        if setting and rivals:
            detail = f"{section.header}: the domain {domain!r} is claimed by [provider.{rivals[0]}] too"
            yield Finding("error", setting.origin, detail)


def _check_section(section: Section) -> Iterator[Finding]:
    if not section.settings and not section.attributes and not section.reply_rules:
        yield Finding("warning", section.origin, f"{section.header}: empty, so it changes nothing")
    for rule in section.reply_rules:
        yield from _check_rule(section, rule)


def _check_rule(section: Section, rule: ReplyRule) -> Iterator[Finding]:
    where = f"{section.header} on_reply"
    yield Finding(
        "warning", rule.origin, f"{where}: reply rules are read, but this version does not act on them"
    )
    pattern = rule.raw.get("match")
    if pattern is None:
        return
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except (re2.error, TypeError) as error:
        yield Finding(
            "error", rule.origin, f"{where}: match: expected a pattern in RE2's syntax, got {error}"
        )
        return
    samples = rule.raw.get("samples", [])
    if not samples:
        yield Finding("error", rule.origin, f"{where}: no samples: nothing shows that it fires")
    for sample in samples:
        if not isinstance(sample, str) or not compiled.search(sample):
            yield Finding("error", rule.origin, f"{where}: match does not match the sample {show(sample)}")


def _check_values(policies: PolicySet) -> Iterator[Finding]:
    """Look at what comes out of the fold wherever a section can change it."""
    for customer, vmta, destination in _foldings(policies):
        policy = policies.effective(destination, customer, vmta)
        trace = policies.trace(destination, customer, vmta)
        burst = trace["burst"][-1]
        rate = policy.max_message_rate
        if rate is not None and burst.setting.value > rate.count:
            detail = f"{burst.layer}: burst {burst.setting.value} is more than {format_rate(rate)} allows"
            yield Finding("warning", burst.setting.origin, f"{detail}; it counts as {rate.count}")
        retry = trace["retry"][-1]
        if policy.retry_s[0] >= policy.expire_after_s:
            detail = f"{retry.layer}: the first retry comes after expire_after"
            yield Finding(
                "warning", retry.setting.origin, f"{detail} {format_duration(policy.expire_after_s)}: none"
            )


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
