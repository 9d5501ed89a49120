"""What a reply means: one of the categories, found by rules over its text, then by its codes.

All patterns are tried in one pass: re2's filter knows from the words of a text which of them can match.
Verdicts are remembered by normal form: a thousand refusals of one blast are worked out once.

Owns: which rule decides; what is remembered.
Never: classifies what we said ourselves by its text (`categories.own_verdict`).
Hot: `classify` for every deferral and bounce; bench/classification has the figures.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache

import re2

from engine.core.reply import Reply
from engine.policy.categories import Verdict, own_verdict
from engine.policy.normalize import enhanced_of, normalize
from engine.policy.reply_rules import CODE, ENHANCED, TEXT, Rule, compile_options, of_basis

# Normal forms remembered, the least used forgotten first; about 400 octets each.
MAX_REMEMBERED = 10_000
UNKNOWN = Verdict("other", "", "none")

_Key = tuple[str, int, str, str]


class Classifier:
    """The rules of one policy set, compiled."""

    def __init__(self, rules: tuple[Rule, ...], *, max_remembered: int = MAX_REMEMBERED) -> None:
        """Args: rules: in the order in which they are asked."""
        self.rules = rules
        self.hits = 0
        self.misses = 0
        self._max_remembered = max_remembered
        self._remembered: OrderedDict[_Key, Verdict] = OrderedDict()
        self._providers = frozenset(name for rule in rules for name in rule.providers)
        self._of_pattern: list[Rule] = []
        self._by_codes = of_basis(rules, ENHANCED) + of_basis(rules, CODE)
        self._filter = re2.Filter()
        options = compile_options()
        for rule in of_basis(rules, TEXT):
            for pattern in rule.match:
                self._filter.Add(pattern, options)
                self._of_pattern.append(rule)
        if self._of_pattern:
            self._filter.Compile()

    def classify(self, reply: Reply, provider: str = "") -> Verdict:
        """Return the category of a reply, and the rule that found it. HOT.

        Args: provider: its name, where the peer is one's; "" else.
        """
        if reply.synthetic:
            return own_verdict(reply)
        provider = provider.lower()
        if provider not in self._providers:
            provider = ""
        text = normalize(reply)
        key = (text, reply.code, reply.enhanced, provider)
        remembered = self._remembered
        verdict = remembered.get(key)
        if verdict is not None:
            self.hits += 1
            remembered.move_to_end(key)
            return verdict
        self.misses += 1
        if len(remembered) >= self._max_remembered:
            remembered.popitem(last=False)
        verdict = remembered[key] = self._find(reply, text, provider)
        return verdict

    def _find(self, reply: Reply, text: str, provider: str) -> Verdict:
        code, enhanced = reply.code, enhanced_of(reply)
        for rule in self._matching(text):
            if rule.fits(code, enhanced, provider):
                return Verdict(rule.category, rule.name, rule.basis)
        for rule in self._by_codes:
            if rule.fits(code, enhanced, provider):
                return Verdict(rule.category, rule.name, rule.basis)
        return UNKNOWN

    def _matching(self, text: str) -> list[Rule]:
        """Return the rules whose patterns match, in their order."""
        if not self._of_pattern:
            return []
        return [self._of_pattern[index] for index in sorted(self._filter.Match(text) or ())]


@lru_cache(4)
def make_classifier(rules: tuple[Rule, ...]) -> Classifier:
    """Return the classifier of these rules: over a reload that changes none of them, it remembers on.

    Compiling takes 0.1 s for the rules that ship, and 0.3 s for 3,000.
    """
    return Classifier(rules)
