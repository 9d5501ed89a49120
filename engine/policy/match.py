"""Which provider a domain belongs to: by its name first, then by its MX hosts.

Every MX host of the domain must match a pattern of the provider. Where several providers match,
the one with the longer pattern wins, and among equals the one written last (`check` reports them).

Never: looks a name up; the caller caches (`fold`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from engine.policy.layers import Section


class PatternIndex:
    """Finds who owns a name, among exact names and "*.suffix" patterns, in as many steps as it has labels."""

    __slots__ = ("_exact", "_suffix")

    def __init__(self) -> None:
        self._exact: dict[str, list[str]] = {}
        self._suffix: dict[str, list[str]] = {}

    def add(self, pattern: str, owner: str) -> None:
        """Args: pattern: in lower case; owner: who claims what it matches."""
        index, key = (self._suffix, pattern[2:]) if pattern.startswith("*.") else (self._exact, pattern)
        index.setdefault(key, []).append(owner)

    def find(self, name: str) -> dict[str, int]:
        """Return {owner: octets of its longest pattern}; an exact name outranks any suffix."""
        found: dict[str, int] = {}
        for owner in self._exact.get(name, ()):
            found[owner] = len(name) + 1
        dot = name.find(".")
        while dot >= 0:
            suffix = name[dot + 1 :]
            for owner in self._suffix.get(suffix, ()):
                found.setdefault(owner, len(suffix))
            dot = name.find(".", dot + 1)
        return found


class ProviderMatcher:
    """The providers of one policy set, indexed by domain and by MX host."""

    __slots__ = ("_domains", "_mx", "_rank")

    def __init__(self, providers: dict[str, Section]) -> None:
        self._domains = PatternIndex()
        self._mx = PatternIndex()
        self._rank = {name: number for number, name in enumerate(providers)}
        for name, section in providers.items():
            _fill(self._domains, section, "domains", name)
            _fill(self._mx, section, "mx", name)

    def provider_of(self, domain: str, hosts: Collection[str]) -> str:
        """Return the provider's name, or "" where there is none. Names are in lower case."""
        found = self._domains.find(domain) or (self._common(hosts) if hosts else None)
        return self._best(found) if found else ""

    def claims_domain(self, domain: str) -> dict[str, int]:
        """Return {provider: length of the pattern by which it claims the domain by name}."""
        return self._domains.find(domain)

    def claims_host(self, host: str) -> dict[str, int]:
        """Return {provider: length of the pattern by which it claims the MX host}."""
        return self._mx.find(host)

    def _common(self, hosts: Iterable[str]) -> dict[str, int]:
        """Return the providers that claim all hosts, with the shortest of the lengths."""
        common: dict[str, int] | None = None
        for host in hosts:
            found = self._mx.find(host)
            if common is None:
                common = found
            else:
                common = {owner: min(size, found[owner]) for owner, size in common.items() if owner in found}
            if not common:
                break
        return common or {}

    def _best(self, found: dict[str, int]) -> str:
        return max(found, key=lambda owner: (found[owner], self._rank[owner]))


def _fill(index: PatternIndex, section: Section, key: str, owner: str) -> None:
    setting = section.attributes.get(key)
    for pattern in setting.value if setting else ():
        index.add(pattern, owner)
