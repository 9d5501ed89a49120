"""What `mailrail check` finds in rules over replies: each must get the samples that it carries.

A rule is out of reach where another one of its directory goes before it, for its own sample. Rules of an
operator's directory may take from those that ship: that is what they are for.

Never: refuses anything; reply_rules does that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

import re2

from engine.core.fields import show
from engine.core.finding import Finding
from engine.policy.fold import PolicySet
from engine.policy.normalize import enhanced_of, normalize, parse_reply
from engine.policy.reply_rules import Rule, compile_options


def check_replies(policies: PolicySet) -> Iterator[Finding]:
    """Yield what is wrong with rules, in their order."""
    layers = policies.layers.classify
    known = {name.lower() for name in policies.providers}
    for rule in layers.rules.values():
        for provider in rule.providers:
            if provider not in known:
                yield Finding(
                    "warning", rule.origin, f"{_where(rule)}: provider: there is no [provider.{provider}]"
                )
        for sample in rule.samples:
            yield from _check_sample(policies, rule, sample)


def _check_sample(policies: PolicySet, rule: Rule, sample: str) -> Iterator[Finding]:
    reply = parse_reply(sample.removeprefix("000 "))
    verdict = policies.classifier.classify(reply, "".join(rule.providers[:1]))
    if verdict.rule == rule.name:
        return
    text = normalize(reply)
    if rule.match and not any(re2.search(each, text, compile_options()) for each in rule.match):
        yield Finding(
            "error",
            rule.origin,
            f"{_where(rule)}: match does not match the sample {show(sample)}, which reads {text!r}",
        )
        return
    winner = policies.layers.classify.rules.get(verdict.rule)
    if winner is None or not rule.fits(reply.code, enhanced_of(reply), "".join(rule.providers[:1])):
        yield Finding(
            "error", rule.origin, f"{_where(rule)}: code or enhanced does not fit the sample {show(sample)}"
        )
    elif PurePath(winner.origin.file).parent == PurePath(rule.origin.file).parent:
        detail = f"{_where(rule)}: out of reach for the sample {show(sample)}: {winner.name} goes before"
        yield Finding("error", rule.origin, f"{detail} ({winner.origin})")


def _where(rule: Rule) -> str:
    return f"[[classify]] {rule.name}"
