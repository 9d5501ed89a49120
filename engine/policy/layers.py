"""What was written where, before it is folded.

    default  <  provider  <  domain  <  customer's sections  <  vmta's sections

and within a customer's or a vmta's sections again default < provider < domain. A later file's
value replaces an earlier one's in the same section, key by key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from engine.core.errors import Origin
from engine.policy.on_reply import ReplyRule
from engine.policy.reply_rules import ClassifyLayers


class Setting(NamedTuple):
    """One key of one section: as written, as parsed, and where it stands."""

    raw: Any
    value: Any
    origin: Origin


class Section:
    """One section of the policy files, over all files that have it."""

    __slots__ = ("attributes", "header", "origin", "reply_rules", "settings")

    def __init__(self, header: str, origin: Origin) -> None:
        self.header = header  # as a file has it: [provider.gmail]
        self.origin = origin  # of the first file that has it
        self.settings: dict[str, Setting] = {}  # keys that a Policy has
        self.attributes: dict[str, Setting] = {}  # keys that name a provider: domains, mx, mx_samples
        self.reply_rules: list[ReplyRule] = []


class Scope:
    """Sections for everything, for a provider or for a domain: of all mail, one customer's or one vmta's."""

    __slots__ = ("default", "domains", "providers")

    def __init__(self) -> None:
        self.default: Section | None = None
        self.providers: dict[str, Section] = {}
        self.domains: dict[str, Section] = {}

    def applying(self, provider: str, domain: str) -> Iterator[Section]:
        """Yield the sections that apply, weakest first."""
        for section in (self.default, self.providers.get(provider), self.domains.get(domain)):
            if section is not None:
                yield section

    def all(self) -> Iterator[Section]:
        """Yield every section of the scope."""
        if self.default is not None:
            yield self.default
        yield from self.providers.values()
        yield from self.domains.values()


class Layers:
    """Everything that the policy files say."""

    __slots__ = ("base", "classify", "customers", "vmtas")

    def __init__(self) -> None:
        self.classify = ClassifyLayers()
        self.base = Scope()
        self.customers: dict[str, Scope] = {}
        self.vmtas: dict[str, Scope] = {}

    def scopes(self) -> Iterator[Scope]:
        """Yield every scope, weakest first."""
        yield self.base
        yield from self.customers.values()
        yield from self.vmtas.values()
