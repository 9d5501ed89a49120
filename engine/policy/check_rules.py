"""What `mailrail check` finds in rules for replies: those that miss their samples, or never get a turn.

The first rule that matches, and whose trigger is reached, decides; only `notify` lets the search go on. So a
rule is dead where all that it would match goes to rules before it that wait for no more replies than it does:
proved by its samples, or by its conditions where theirs ask for less. Which rules come before which is
on_reply's to say. Rules of an operator's directory may take from those that ship: that is what they are for.

A rule of the default section stays alive for whoever has no rules of their own, whatever providers' take.

Never: refuses anything; parse does that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import PurePath
from typing import Any

import re2

from engine.core.fields import suggest
from engine.core.finding import Finding
from engine.policy.fold import PolicySet
from engine.policy.layers import Section
from engine.policy.normalize import parse_reply
from engine.policy.on_reply import ReplyRule
from engine.policy.reply_rules import compile_options
from engine.policy.rule_search import fits_code, fits_enhanced

_SAMPLE = re.compile(r"([245]\d\d)[ -]?([245]\.\d{1,3}\.\d{1,3}\b)?")
_SHOWN = 60  # octets of a sample, in a finding: enough to find it

_Classify = Callable[[str], str]
_Before = tuple[ReplyRule, ...]


def check_rules(policies: PolicySet) -> Iterator[Finding]:
    """Yield everything that looks wrong with any rule."""
    yield from _check_switches(policies)
    rules = policies.reply_rules
    for section in policies.layers.base.all():
        classify = partial(_category_of, policies, section)
        own = rules.get(section.header, ())
        for rule in own:
            yield from _check_samples(rule, classify)
        yield from _check_reach(own, _outranking(policies, section), classify)


def _category_of(policies: PolicySet, section: Section, sample: str) -> str:
    """Return what a sample of a section's rule is classified as."""
    provider = next((name for name, each in policies.layers.base.providers.items() if each is section), "")
    return policies.classifier.classify(parse_reply(sample), provider).category


def _check_switches(policies: PolicySet) -> Iterator[Finding]:
    """Find rules that switch nothing off."""
    for section in policies.layers.base.all():
        known: list[str] = []
        for rule in section.reply_rules:
            if rule.does == "nothing" and rule.name not in known:
                detail = f"{rule.where}: switches nothing off, no rule before it has that name"
                yield Finding("error", rule.origin, f"{detail}; {suggest(rule.name, known)}")
            known.append(rule.name)


def _check_samples(rule: ReplyRule, classify: _Classify) -> Iterator[Finding]:
    if rule.match and not rule.samples:
        yield Finding("error", rule.origin, f"{rule.where}: no samples: nothing shows that it fires")
    for sample in rule.samples:
        if not _SAMPLE.match(sample):
            detail = f'{rule.where}: expected samples like "421 4.7.0 text", got {_quote(sample)}'
            yield Finding("error", rule.origin, detail)
            continue
        for condition, holds in _conditions(rule, sample, classify):
            if not holds:
                detail = f"{rule.where}: {condition} does not match the sample {_quote(sample)}"
                yield Finding("error", rule.origin, detail)


def _conditions(rule: ReplyRule, sample: str, classify: _Classify) -> Iterator[tuple[str, bool]]:
    """Yield each condition that a text can be asked for, and whether it holds."""
    parts = _SAMPLE.match(sample)
    code, enhanced = parts.groups("") if parts else ("", "")
    if rule.match:
        yield "match", bool(_compile(rule.match).search(sample))
    if rule.codes:
        yield f"code {_list(rule.codes)}", any(fits_code(code, each) for each in rule.codes)
    if rule.enhanced:
        yield f"enhanced {_list(rule.enhanced)}", any(fits_enhanced(enhanced, each) for each in rule.enhanced)
    if rule.categories:
        yield f"category {_list(rule.categories)}", classify(sample) in rule.categories


@lru_cache(2048)
def _compile(pattern: str) -> Any:
    return re2.compile(pattern, compile_options())


def _check_reach(
    rules: tuple[ReplyRule, ...], outranking: list[_Before], classify: _Classify
) -> Iterator[Finding]:
    """Find the rules of a section that no reply comes to, and samples that go to another rule.

    Args:
        outranking: for each domain that may come to the section, the rules that come before its own.
    """
    for number, rule in enumerate(rules):
        before = [_deciding(rule, (*first, *rules[:number])) for first in outranking]
        takers = [taker for each in before if (taker := _find_taker(rule, each, classify))]
        if len(takers) == len(before):
            what = "every sample of it" if rule.samples else "all that it would match"
            detail = f"{rule.where}: unreachable: {what} goes to {takers[0].where} ({takers[0].origin})"
            yield Finding("error", rule.origin, detail)
            continue
        for sample, taker in _find_taken(rule, _deciding(rule, rules[:number]), classify).items():
            detail = f"{rule.where}: the sample {_quote(sample)} goes to {taker.where} ({taker.origin})"
            yield Finding("warning", rule.origin, detail)


def _outranking(policies: PolicySet, section: Section) -> list[_Before]:
    """Return what comes before the section's rules, for each domain that may come to them.

    Mostly nothing, since there is a domain without a section; but a provider may be a few domains only.
    """
    sections = policies.layers.base.domains
    setting = section.attributes.get("domains")
    if setting is None or "mx" in section.attributes or not sections.keys() >= set(setting.value):
        return [()]
    return [policies.reply_rules.get(sections[domain].header, ()) for domain in setting.value]


def _deciding(rule: ReplyRule, before: _Before) -> list[ReplyRule]:
    """Return those of the rules before one that leave it nothing of what both match."""
    return [
        each
        for each in before
        if each.does != "notify"
        and each.after.count <= rule.after.count
        and each.after.window_s >= rule.after.window_s * (each.after.count > 1)
        and PurePath(each.origin.file).parent == PurePath(rule.origin.file).parent
    ]


def _find_taker(rule: ReplyRule, before: list[ReplyRule], classify: _Classify) -> ReplyRule | None:
    """Return a rule of those before this one that leave nothing for it."""
    for each in before:
        if _asks_less(each, rule):
            return each
    taken = _find_taken(rule, before, classify)
    return next(iter(taken.values())) if taken and taken.keys() == set(rule.samples) else None


def _find_taken(rule: ReplyRule, before: list[ReplyRule], classify: _Classify) -> dict[str, ReplyRule]:
    """Return which samples surely go to which of the rules before this one."""
    taken: dict[str, ReplyRule] = {}
    for sample in rule.samples:
        for each in before:
            if _takes(each, rule, sample, classify):
                taken.setdefault(sample, each)
    return taken


def _takes(earlier: ReplyRule, later: ReplyRule, sample: str, classify: _Classify) -> bool:
    """A text has no phase: there the earlier rule must ask for no more than the later one."""
    return _is_within(later.phases, earlier.phases) and all(
        holds for _, holds in _conditions(earlier, sample, classify)
    )


def _asks_less(earlier: ReplyRule, later: ReplyRule) -> bool:
    """Return whether each reply that the later rule asks for is the earlier one's, whatever the samples.

    Patterns are not compared: of two that are alike, the samples of one prove the other.
    """
    return (
        not earlier.match
        and _is_within(later.codes, earlier.codes, fits_code)
        and _is_within(later.enhanced, earlier.enhanced, fits_enhanced)
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
