"""What `mailrail check` finds in providers: those that can't get what they say, and those that share a claim.

A provider must get each of its sample MX hosts, and no two may claim one host or one domain, whichever files
say so: operators' files stand over those that ship, and a slip there would move somebody else's mail.

Never: refuses anything; parse does that. Looks nothing up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from engine.core.finding import Finding
from engine.policy.fold import PolicySet
from engine.policy.layers import Section, Setting
from engine.policy.match import PatternIndex

# What TOML takes without quotes, metrics as a label without surprise, and people as one word.
_NAME = re.compile(r"[a-z][a-z0-9_-]*")

Claims = dict[str, int]  # {provider: octets of the longest pattern by which it claims a name}


def check_providers(policies: PolicySet) -> Iterator[Finding]:
    """Yield everything that looks wrong with any provider."""
    for name, section in policies.layers.base.providers.items():
        yield from _check_name(name, section)
        yield from _check_samples(policies, name, section)
        yield from _check_unshown(policies, name, section)
        yield from _check_domains(policies, name, section)
        for key in ("mx", "domains"):
            yield from _check_breadth(section, key)
            yield from _check_idle(policies, name, section, key)


def _check_name(name: str, section: Section) -> Iterator[Finding]:
    if _NAME.fullmatch(name):
        return
    hint = 'lower case letters, digits, "-" and "_" read well in files and metrics'
    if "." in name:
        hint = f'it looks like a domain, whose settings stand in [domain."{name}"]'
    yield Finding("warning", section.origin, f"{section.header}: a provider's name: {hint}")


def _check_samples(policies: PolicySet, name: str, section: Section) -> Iterator[Finding]:
    patterns, samples = section.attributes.get("mx"), section.attributes.get("mx_samples")
    if patterns is None:
        if samples is not None:
            yield Finding("error", samples.origin, f"{section.header}: mx_samples without mx: none can match")
        return
    if samples is None:
        detail = f"{section.header}: mx without mx_samples: nothing shows that it fires"
        yield Finding("error", section.origin, detail)
        return
    for host in samples.value:
        claims = policies.matcher.claims_host(host)
        rival = _find_rival(claims, name)
        if name not in claims:
            yield _miss(section, patterns, samples, host)
        elif rival:
            detail = f"{section.header}: the sample {host!r} is claimed by {_show(policies, rival, 'mx')} too"
            yield Finding("error", samples.origin, detail)


def _miss(section: Section, patterns: Setting, samples: Setting, host: str) -> Finding:
    """Blame the patterns where a later file has put them in the place of those that the samples are for."""
    detail = f"{section.header}: no pattern of mx matches the sample {host!r}"
    if patterns.origin.file in (samples.origin.file, section.origin.file):
        return Finding("error", samples.origin, detail)
    return Finding("error", patterns.origin, f"{detail} ({samples.origin}); mx_samples belong here, too")


def _check_unshown(policies: PolicySet, name: str, section: Section) -> Iterator[Finding]:
    """A pattern without a sample may be as good as absent: nobody would notice."""
    patterns, samples = section.attributes.get("mx"), section.attributes.get("mx_samples")
    if patterns is None or samples is None:
        return
    for pattern in patterns.value:
        index = _index([pattern])
        if any(index.find(host) for host in samples.value):
            continue
        rival = _find_rival(policies.matcher.claims_host(pattern), name)
        if rival:  # where the pattern has samples, those are the findings
            detail = f"{section.header}: the pattern {pattern!r} is {_show(policies, rival, 'mx')}'s, too"
            yield Finding("error", patterns.origin, detail)
        else:
            detail = f"{section.header}: no sample for the pattern {pattern!r}"
            yield Finding("warning", patterns.origin, detail)


def _check_domains(policies: PolicySet, name: str, section: Section) -> Iterator[Finding]:
    setting = section.attributes.get("domains")
    for domain in setting.value if setting else ():
        rival = _find_rival(policies.matcher.claims_domain(domain), name)
        if setting and rival:
            detail = f"the domain {domain!r} is claimed by {_show(policies, rival, 'domains')} too"
            yield Finding("error", setting.origin, f"{section.header}: {detail}")


def _check_breadth(section: Section, key: str) -> Iterator[Finding]:
    setting = section.attributes.get(key)
    for pattern in setting.value if setting else ():
        if setting and pattern.startswith("*.") and pattern.count(".") == 1:
            detail = f"{section.header}: {pattern!r} of {key} takes a whole top-level domain"
            yield Finding("warning", setting.origin, detail)


def _check_idle(policies: PolicySet, name: str, section: Section, key: str) -> Iterator[Finding]:
    """A pattern below a broader one of its own does something only where another provider comes between."""
    setting = section.attributes.get(key)
    if setting is None:
        return
    claims_of = policies.matcher.claims_host if key == "mx" else policies.matcher.claims_domain
    for pattern in setting.value:
        broader = _index(other for other in setting.value if other != pattern).find(pattern)
        if not broader:
            continue
        longest = max(broader, key=lambda other: broader[other])
        between = any(other != name and size > broader[longest] for other, size in claims_of(pattern).items())
        if not between:
            detail = f"{section.header}: {pattern!r} of {key} adds nothing to {longest!r}"
            yield Finding("warning", setting.origin, detail)


def _find_rival(claims: Claims, name: str) -> str:
    """Return another provider whose claim is as good as this one's or better, or ""."""
    own = claims.get(name, 0)
    return next((other for other, size in claims.items() if other != name and size >= own), "")


def _show(policies: PolicySet, name: str, key: str) -> str:
    section = policies.layers.base.providers[name]
    return f"{section.header} ({section.attributes[key].origin})"


def _index(patterns: Iterable[str]) -> PatternIndex:
    index = PatternIndex()
    for pattern in patterns:
        index.add(pattern, pattern)
    return index
