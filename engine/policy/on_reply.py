"""What [[....on_reply]] tables say, parsed, in the order in which they are asked.

Rules of a domain come before those of its provider, those before the default's. In a section a later file's
come first, so that an operator's rules are asked before those that ship; in a file they stand in order. A
rule that a later file names again is replaced by it, `do = "nothing"` takes it out.

Owns: the keys of a rule, what each action needs, names and order.
Never: searches (rule_search does), reacts.
Fails: ConfigError with file, line and key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from engine.core import fields
from engine.core.document import Document, KeyPath
from engine.core.errors import ConfigError, Origin
from engine.core.fields import Field, describe, read_table, require_table, show
from engine.core.units import Rate, format_duration, parse_rate
from engine.policy.categories import CATEGORIES
from engine.policy.reply_rules import read_pattern

MAX_RULES = 10_000  # as of [[classify]]
MAX_FOR_S = 30 * 86_400.0
MAX_TRIGGER = 1_000  # replies that one trigger may count: their times are kept
DEFAULT_FACTOR = 0.5

PHASES = ("connect", "ehlo", "tls", "mail", "rcpt", "data")
ACTIONS = ("slow", "hold", "bounce", "retry", "skip_mx", "no_tls", "notify", "nothing")
SCOPES = {"hold": ("path", "vmta", "customer", "provider"), "bounce": ("recipient", "waiting")}
OF_HOSTS = frozenset(("skip_mx", "no_tls"))  # they reach a host, whichever vmta meets it

_CODE = re.compile(r"[245](?:xx|[0-9]{2})")
_ENHANCED = re.compile(r"[245]\.(?:\*|[0-9]{1,3}\.(?:\*|[0-9]{1,3}))")


class ReplyRule(NamedTuple):
    """One [[....on_reply]] table. An empty condition holds for every reply."""

    name: str
    header: str  # of its section: [provider.gmail]
    origin: Origin
    does: str
    match: str = ""
    categories: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    enhanced: frozenset[str] = frozenset()
    phases: frozenset[str] = frozenset()
    after: Rate = Rate(1, 60.0)
    rate: float | Rate | None = None  # slow: a factor, or a value
    connections: float | int | None = None
    scope: str = ""
    in_s: float = 0.0
    vmta: str = "same"
    for_s: float = 0.0
    is_gradual: bool = True
    successes: int = 0
    samples: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Section and name, as findings have it."""
        return f"{self.header} on_reply {self.name}"

    @property
    def is_at_once(self) -> bool:
        """The first such reply is enough."""
        return self.after.count == 1

    def describe(self) -> str:
        """Return what it does, in words of the file."""
        said = [self.does]
        if self.scope not in ("", "path", "recipient"):
            said.append(self.scope)
        said += [
            f"{key} {value}"
            for key, value in (
                ("rate", self.rate),
                ("connections", self.connections),
                ("in", format_duration(self.in_s) if self.in_s else ""),
                ("vmta", self.vmta if self.vmta != "same" else ""),
                ("for", format_duration(self.for_s) if self.for_s else ""),
            )
            if value not in ("", None)
        ]
        return " ".join(said)

    def conditions(self) -> str:
        """Return what it asks of a reply, in words of the file."""
        said = [f"match {self.match}"] if self.match else []
        for key in ("categories", "codes", "enhanced", "phases"):
            values = getattr(self, key)
            if values:
                said.append(f"{_KEY_OF[key]} {', '.join(sorted(values))}")
        return "; ".join(said) + ("" if self.is_at_once else f"; after {self.after}")


_KEY_OF = {"categories": "category", "codes": "code", "enhanced": "enhanced", "phases": "phase"}


def read_rules(document: Document, path: KeyPath, raw: Any, header: str, known: int) -> Iterator[ReplyRule]:
    """Yield the rules of one section of one file.

    Args:
        path: of the array, [..., "on_reply"].
        known: rules of the section in earlier files; those without a name are numbered on.
    """
    if not isinstance(raw, list):
        detail = f"{describe(path)}: expected [[...on_reply]], got {show(raw)}"
        raise ConfigError(document.origin(path), detail)
    for index, table in enumerate(raw):
        here = (*path, index)
        name = f"{path[-2]}-{known + index + 1}"
        yield _read_rule(document, here, require_table(document, here, table), header, name)


def _read_rule(document: Document, path: KeyPath, table: dict[str, Any], header: str, name: str) -> ReplyRule:
    values = {"name": name, **read_table(document, path, table, _FIELDS)}
    origin = document.origin(path)
    rule = ReplyRule(header=header, origin=origin, **values)
    where = f"{describe(path)} ({rule.name})"
    if rule.does == "nothing":
        if set(table) != {"name", "do"}:
            raise ConfigError(origin, f'{where}: do = "nothing" stands with the name alone')
        return rule
    if not (rule.match or rule.categories or rule.codes or rule.enhanced):
        detail = "none of match, category, code and enhanced: it would take every reply"
        raise ConfigError(origin, f"{where}: {detail}")
    fault = _fault_of(rule, table)
    if fault is not None:
        key, detail = fault
        raise ConfigError(document.origin((*path, key)), f"{where}: {detail}")
    if rule.does == "slow" and rule.rate is None and rule.connections is None:
        return rule._replace(rate=DEFAULT_FACTOR, connections=DEFAULT_FACTOR)
    return rule._replace(scope=rule.scope or SCOPES.get(rule.does, ("path",))[0])


def _fault_of(rule: ReplyRule, table: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the key that is wrong for what the rule does, and why."""
    for key, users in _USERS.items():
        if key in table and rule.does not in users:
            return key, f"key {key}: do = {rule.does!r} has no use for it; {', '.join(users)} has"
    scopes = SCOPES.get(rule.does, ())
    if "scope" in table and rule.scope not in scopes:
        return "scope", f"key scope: expected one of {', '.join(scopes)} with do = {rule.does!r}"
    is_lasting = rule.does in ("slow", "hold", *OF_HOSTS) or rule.scope == "waiting"
    if is_lasting and not rule.for_s:
        return "do", f"key for is missing: how long it holds ({rule.does} ends by itself)"
    if rule.does == "bounce" and not is_lasting and rule.for_s:
        return "for", 'key for: with scope "recipient" nothing lasts'
    if rule.does == "retry" and not rule.in_s and rule.vmta == "same":
        return "do", 'neither in nor vmta = "other": retry would change nothing'
    if rule.does == "bounce" and rule.phases and rule.phases <= {"tls", "ehlo"}:
        return "phase", "key phase: nobody's recipient is refused in ehlo or tls"
    return None


def arrange(sections: Iterable[Iterable[ReplyRule]]) -> dict[str, tuple[ReplyRule, ...]]:
    """Return the rules of each section, by header, in the order in which they are asked.

    Args:
        sections: the rules of each, as they were read: file by file.

    Raises:
        ConfigError: two rules have one name, and are not one section's of two files.
    """
    named: dict[str, ReplyRule] = {}
    for rule in (rule for rules in sections for rule in rules):
        twin = named.pop(rule.name, None)
        if twin is not None and (twin.header != rule.header or twin.origin.file == rule.origin.file):
            raise ConfigError(rule.origin, f"{rule.where}: {twin.where} has that name ({twin.origin})")
        named[rule.name] = rule
        if len(named) > MAX_RULES:
            raise ConfigError(rule.origin, f"{rule.where}: more than {MAX_RULES:,} rules")
    found: dict[str, dict[str, list[ReplyRule]]] = {}
    for rule in named.values():
        if rule.does != "nothing":
            found.setdefault(rule.header, {}).setdefault(rule.origin.file, []).append(rule)
    return {header: _later_first(by_file) for header, by_file in found.items()}


def _later_first(by_file: dict[str, list[ReplyRule]]) -> tuple[ReplyRule, ...]:
    return tuple(rule for file in reversed(by_file) for rule in by_file[file])


def _code(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and _CODE.fullmatch(text):
        return text
    raise ValueError('expected a code such as 421, or "4xx" or "5xx"')


def _enhanced(value: Any) -> str:
    if isinstance(value, str) and _ENHANCED.fullmatch(value):
        return value
    raise ValueError('expected an enhanced code such as "4.7.28", or "4.7.*"')


def _set_of(item: fields.Parser) -> fields.Parser:
    parse = fields.one_or_many(item, 100)

    def parse_set(value: Any) -> frozenset[str]:
        return frozenset(parse(value))

    return parse_set


def _after(value: Any) -> Rate:
    rate = parse_rate(value)
    if rate.count > MAX_TRIGGER or rate.window_s > MAX_FOR_S:
        raise ValueError(f"expected at most {MAX_TRIGGER:,} replies in at most {format_duration(MAX_FOR_S)}")
    return rate


def _slower(value: Any) -> float | Rate:
    if isinstance(value, str):
        return parse_rate(value)
    return _factor(value, 'expected a factor such as 0.5, or a rate such as "10/min"')


def _fewer(value: Any) -> float | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(fields.whole(1, 100_000)(value))
    return _factor(value, "expected a factor such as 0.5, or a number of connections")


def _factor(value: Any, expected: str) -> float:
    if not isinstance(value, float) or not 0.0 < value < 1.0:
        raise ValueError(f"{expected}; a factor is above 0 and below 1")
    return value


def _is_gradual(value: Any) -> bool:
    return bool(fields.choice("gradual", "at_once")(value) == "gradual")


_FIELDS = {
    "name": Field("name", fields.name),
    "match": Field("match", read_pattern),
    "category": Field("categories", _set_of(fields.choice(*CATEGORIES))),
    "code": Field("codes", _set_of(_code)),
    "enhanced": Field("enhanced", _set_of(_enhanced)),
    "phase": Field("phases", _set_of(fields.choice(*PHASES))),
    "after": Field("after", _after),
    "do": Field("does", fields.choice(*ACTIONS), required=True),
    "rate": Field("rate", _slower),
    "connections": Field("connections", _fewer),
    "scope": Field("scope", fields.choice(*dict.fromkeys(sum(SCOPES.values(), ())))),
    "in": Field("in_s", fields.duration(1.0, MAX_FOR_S)),
    "vmta": Field("vmta", fields.choice("same", "other")),
    "for": Field("for_s", fields.duration(1.0, MAX_FOR_S)),
    "recover": Field("is_gradual", _is_gradual),
    "successes": Field("successes", fields.whole(1, 1_000_000)),
    "samples": Field("samples", fields.many(fields.text, 1, 100)),
}
_USERS = {  # which actions have a use for a key
    "rate": ("slow",),
    "connections": ("slow",),
    "recover": ("slow",),
    "successes": ("slow",),
    "scope": ("hold", "bounce"),
    "in": ("retry",),
    "vmta": ("retry",),
    "for": ("slow", "hold", "bounce", "skip_mx", "no_tls"),
}
