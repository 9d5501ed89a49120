"""What `mailrail check` finds in rules for replies: those that miss their samples, or never get a turn.

In a section rules are tried in the order of file and line, and the first that matches decides; only `notify`
lets the search go on. Rules of a domain come before those of its provider. So a rule is dead where all that
it would match goes to rules before it: proved by its samples, or by its conditions where theirs ask for less.

A rule of the default section stays alive for whoever has no rules of their own, whatever providers' take.

Never: refuses anything; parse does that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import re2

from engine.core.errors import Origin
from engine.core.fields import show, suggest
from engine.core.finding import Finding
from engine.policy.fold import PolicySet
from engine.policy.layers import ReplyRule, Section

_SAMPLE = re.compile(r"([245]\d\d)[ -]?([245]\.\d{1,3}\.\d{1,3}\b)?")
_SHOWN = 60  # octets of a sample, in a finding: enough to find it


class _Rule(NamedTuple):
    """A rule as far as the search for it goes. An empty condition holds for every reply."""

    name: str
    where: str  # section and name, as findings have it
    origin: Origin
    pattern: Any  # compiled; None for none
    codes: frozenset[str]
    enhanced: frozenset[str]
    categories: frozenset[str]
    phases: frozenset[str]
    samples: tuple[str, ...]
    does: str  # "nothing", "notify", or what ends the search


def check_rules(policies: PolicySet) -> Iterator[Finding]:
    """Yield everything that looks wrong with any rule."""
    found: dict[str, list[_Rule]] = {}
    seen: dict[str, _Rule] = {}
    for known_as, section in _sections(policies):
        rules: list[_Rule] = []
        for number, table in enumerate(section.reply_rules, 1):
            rule = _read(table, section.header, f"{known_as}-{number}")
            if isinstance(rule, Finding):
                yield rule
            else:
                yield from _place(rule, rules, seen)
        found[section.header] = [rule for rule in rules if rule.does != "nothing"]
    for _, section in _sections(policies):
        for rule in found[section.header]:
            yield from _check_samples(rule)
        yield from _check_reach(found[section.header], _outranking(policies, section, found))


def _sections(policies: PolicySet) -> Iterator[tuple[str, Section]]:
    """Yield the sections that may have rules, and how rules without a name are called there."""
    base = policies.layers.base
    if base.default is not None:
        yield "default", base.default
    yield from base.providers.items()
    yield from base.domains.items()


def _read(rule: ReplyRule, header: str, number: str) -> _Rule | Finding:
    raw = rule.raw
    name = str(raw.get("name", number))
    where = f"{header} on_reply {name}"
    pattern = None
    if "match" in raw:
        options = re2.Options()
        options.log_errors = False
        options.case_sensitive = False
        try:
            pattern = re2.compile(raw["match"], options)
        except (re2.error, TypeError) as error:
            found = error.args[0]  # octets where it is a text, pages of C++ where it is none
            reason = found.decode() if isinstance(found, bytes) else f"got {show(raw['match'])}"
            detail = f"{where}: match: expected a pattern in RE2's syntax ({reason})"
            return Finding("error", rule.origin, detail)
    if not isinstance(raw.get("samples", []), list):
        detail = f"{where}: samples: expected a list of replies, got {show(raw['samples'])}"
        return Finding("error", rule.origin, detail)
    return _Rule(
        name=name,
        where=where,
        origin=rule.origin,
        pattern=pattern,
        codes=_words(raw, "code"),
        enhanced=_words(raw, "enhanced"),
        categories=_words(raw, "category"),
        phases=_words(raw, "phase"),
        samples=tuple(each if isinstance(each, str) else show(each) for each in raw.get("samples", ())),
        does=str(raw.get("do", "")),
    )


def _words(raw: dict[str, Any], key: str) -> frozenset[str]:
    """Return what stands alone or in a list, as text: 421 and "421" are one code."""
    value = raw.get(key, [])
    return frozenset(str(each).lower() for each in (value if isinstance(value, list) else [value]))


def _place(rule: _Rule, rules: list[_Rule], seen: dict[str, _Rule]) -> Iterator[Finding]:
    """Add the rule to its section's, or put it in the place of the one that an earlier file gave its name."""
    twin = seen.get(rule.name)
    if twin is None and rule.does == "nothing":
        known = suggest(rule.name, [each.name for each in rules])
        detail = f"{rule.where}: switches nothing off, no rule before it has that name; {known}"
        yield Finding("error", rule.origin, detail)
        return
    if twin is None:
        rules.append(rule)
    elif twin in rules and twin.origin.file != rule.origin.file:
        rules[rules.index(twin)] = rule
    else:
        yield Finding("error", rule.origin, f"{rule.where}: {twin.where} has that name ({twin.origin})")
        return
    seen[rule.name] = rule


def _check_samples(rule: _Rule) -> Iterator[Finding]:
    if rule.pattern is not None and not rule.samples:
        yield Finding("error", rule.origin, f"{rule.where}: no samples: nothing shows that it fires")
    for sample in rule.samples:
        if not _SAMPLE.match(sample):
            detail = f'{rule.where}: expected samples like "421 4.7.0 text", got {_quote(sample)}'
            yield Finding("error", rule.origin, detail)
            continue
        for condition, holds in _conditions(rule, sample):
            if not holds:
                detail = f"{rule.where}: {condition} does not match the sample {_quote(sample)}"
                yield Finding("error", rule.origin, detail)


def _conditions(rule: _Rule, sample: str) -> Iterator[tuple[str, bool]]:
    """Yield each condition that a text can be asked for, and whether it holds."""
    parts = _SAMPLE.match(sample)
    code, enhanced = parts.groups("") if parts else ("", "")
    if rule.pattern is not None:
        yield "match", bool(rule.pattern.search(sample))
    if rule.codes:
        yield f"code {_list(rule.codes)}", any(_has_code(code, each) for each in rule.codes)
    if rule.enhanced:
        yield f"enhanced {_list(rule.enhanced)}", any(_is_below(enhanced, each) for each in rule.enhanced)


def _has_code(code: str, wanted: str) -> bool:
    """Return whether a code, or a class of codes, is what "421" or "4xx" asks for."""
    return wanted in (code, f"{code[:1]}xx")


def _is_below(enhanced: str, wanted: str) -> bool:
    """Return whether an enhanced code, or some of them, is what "4.7.28" or "4.7.*" asks for."""
    return enhanced == wanted or (wanted.endswith(".*") and enhanced.startswith(wanted[:-1]))


def _check_reach(rules: list[_Rule], outranking: list[list[_Rule]]) -> Iterator[Finding]:
    """Find the rules of a section that no reply comes to, and samples that go to another rule.

    Args:
        outranking: for each domain that may come to the section, the rules that come before its own.
    """
    for number, rule in enumerate(rules):
        before = [_deciding([*first, *rules[:number]]) for first in outranking]
        takers = [taker for each in before if (taker := _find_taker(rule, each))]
        if len(takers) == len(before):
            what = "every sample of it" if rule.samples else "all that it would match"
            detail = f"{rule.where}: unreachable: {what} goes to {takers[0].where} ({takers[0].origin})"
            yield Finding("error", rule.origin, detail)
            continue
        for sample, taker in _find_taken(rule, _deciding(rules[:number])).items():
            detail = f"{rule.where}: the sample {_quote(sample)} goes to {taker.where} ({taker.origin})"
            yield Finding("warning", rule.origin, detail)


def _outranking(policies: PolicySet, section: Section, found: dict[str, list[_Rule]]) -> list[list[_Rule]]:
    """Return what comes before the section's rules, for each domain that may come to them.

    Mostly nothing, since there is a domain without a section; but a provider may be a few domains only.
    """
    sections = policies.layers.base.domains
    setting = section.attributes.get("domains")
    if setting is None or "mx" in section.attributes or not sections.keys() >= set(setting.value):
        return [[]]
    return [found[sections[domain].header] for domain in setting.value]


def _deciding(rules: list[_Rule]) -> list[_Rule]:
    return [rule for rule in rules if rule.does != "notify"]


def _find_taker(rule: _Rule, before: list[_Rule]) -> _Rule | None:
    """Return a rule of those before this one that leave nothing for it."""
    for each in before:
        if _asks_less(each, rule):
            return each
    taken = _find_taken(rule, before)
    return next(iter(taken.values())) if taken and taken.keys() == set(rule.samples) else None


def _find_taken(rule: _Rule, before: list[_Rule]) -> dict[str, _Rule]:
    """Return which samples surely go to which of the rules before this one."""
    taken: dict[str, _Rule] = {}
    for sample in rule.samples:
        for each in before:
            if _takes(each, rule, sample):
                taken.setdefault(sample, each)
    return taken


def _takes(earlier: _Rule, later: _Rule, sample: str) -> bool:
    """A text has no category and no phase: there the earlier rule must ask for no more than the later one."""
    return (
        _is_within(later.categories, earlier.categories)
        and _is_within(later.phases, earlier.phases)
        and all(holds for _, holds in _conditions(earlier, sample))
    )


def _asks_less(earlier: _Rule, later: _Rule) -> bool:
    """Return whether each reply that the later rule asks for is the earlier one's, whatever the samples.

    Patterns are not compared: of two that are alike, the samples of one prove the other.
    """
    return (
        earlier.pattern is None
        and _is_within(later.codes, earlier.codes, _has_code)
        and _is_within(later.enhanced, earlier.enhanced, _is_below)
        and _is_within(later.categories, earlier.categories)
        and _is_within(later.phases, earlier.phases)
    )


def _is_within(
    inner: frozenset[str], outer: frozenset[str], covers: Callable[[str, str], bool] = str.__eq__
) -> bool:
    """Return whether what meets the inner condition meets the outer one, too; an empty one is met by all."""
    if not outer:
        return True
    return bool(inner) and all(any(covers(each, wanted) for wanted in outer) for each in inner)


def _list(values: frozenset[str]) -> str:
    return ", ".join(sorted(values))


def _quote(sample: str) -> str:
    return repr(sample if len(sample) <= _SHOWN else sample[:_SHOWN] + "...")
