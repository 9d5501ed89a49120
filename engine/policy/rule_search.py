"""Which rules a reply meets: those of its domain, of its provider, of everybody, in the order of the search.

All patterns of a section are tried in one pass (re2's filter), so that a long section costs little more than
a short one. What a reply was classified as is asked for only where a rule wants to know.

Owns: whether the conditions of a rule hold.
Never: counts, reacts. Never sees what we said ourselves: whoever asks looks at `Reply.synthetic`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import re2

from engine.core.reply import Reply
from engine.policy.normalize import enhanced_of
from engine.policy.on_reply import ReplyRule
from engine.policy.reply_rules import compile_options

MAX_LINE_CHARS = 2_000  # of a reply that patterns see; nobody says what it is about behind that


def line_of(reply: Reply) -> str:
    """Return a reply as patterns see it: "CODE ENHANCED TEXT" in one line; what is no UTF-8 as "?"."""
    line = str(reply).replace("\n", " ")[:MAX_LINE_CHARS]
    return line if line.isascii() else line.encode("utf-8", "replace").decode()


class RuleSearch:
    """The rules of one destination's sections."""

    def __init__(self, sections: tuple[tuple[ReplyRule, ...], ...]) -> None:
        """Args: sections: as they are asked: the domain's, its provider's, the default's."""
        self.rules = tuple(rule for rules in sections for rule in rules)
        self._sections = sections
        self._patterns: list[_Patterns] = []

    def find(self, reply: Reply, phase: str, category: Callable[[], str]) -> list[ReplyRule]:
        """Return the rules whose conditions hold, in order. HOT: once for each refusal.

        Args: category: returns what the reply was classified as.
        """
        if not self._patterns:
            self._patterns = [_patterns_of(rules) for rules in self._sections]
        line, code, enhanced = line_of(reply), str(reply.code), enhanced_of(reply)
        found = []
        for rules, patterns in zip(self._sections, self._patterns, strict=True):
            matching = patterns.matching(line)
            found += [
                rule
                for rule in rules
                if (not rule.match or rule.name in matching)
                and (not rule.phases or phase in rule.phases)
                and (not rule.codes or any(fits_code(code, each) for each in rule.codes))
                and (not rule.enhanced or any(fits_enhanced(enhanced, each) for each in rule.enhanced))
                and (not rule.categories or category() in rule.categories)
            ]
        return found


class _Patterns:
    """The compiled patterns of one section."""

    def __init__(self, rules: tuple[ReplyRule, ...]) -> None:
        self._filter = re2.Filter()
        self._names: list[str] = []
        options = compile_options()
        for rule in rules:
            if rule.match:
                self._filter.Add(rule.match, options)
                self._names.append(rule.name)
        if self._names:
            self._filter.Compile()

    def matching(self, line: str) -> set[str]:
        """Return the names of the rules whose patterns match."""
        if not self._names:
            return set()
        return {self._names[index] for index in self._filter.Match(line) or ()}


@lru_cache(1024)
def _patterns_of(rules: tuple[ReplyRule, ...]) -> _Patterns:
    """Compile a section when the first refusal asks for it: most providers never refuse anything."""
    return _Patterns(rules)


def fits_code(code: str, wanted: str) -> bool:
    """Return whether a code, or a class of codes, is what "421" or "4xx" asks for."""
    return wanted in (code, f"{code[:1]}xx")


def fits_enhanced(enhanced: str, wanted: str) -> bool:
    """Return whether an enhanced code, or some of them, is what "4.7.28" or "4.7.*" asks for."""
    return enhanced == wanted or (wanted.endswith(".*") and enhanced.startswith(wanted[:-1]))


def search_of(rules: Mapping[str, tuple[ReplyRule, ...]], headers: list[str]) -> RuleSearch:
    """Return the search over these sections."""
    return RuleSearch(tuple(rules[header] for header in headers if header in rules))
