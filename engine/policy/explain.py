"""Where each value of a policy came from, and which limit binds the throughput of its path.

Pure: built from a policy set and, where there are any, from figures that were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.fields import show
from engine.core.units import format_rate
from engine.policy.fold import Applied, PolicySet
from engine.policy.model import Destination, Policy
from engine.policy.on_reply import ReplyRule


class ExplainedValue(msgspec.Struct, frozen=True):
    """One value as a file has it, the section and line that it came from."""

    value: str
    layer: str
    file: str
    line: int


class ExplainedKey(msgspec.Struct, frozen=True):
    """A key, the value in force, and what weaker sections said, strongest first."""

    key: str
    in_force: ExplainedValue
    overridden: list[ExplainedValue]


class ExplainedRule(msgspec.Struct, frozen=True):
    """A rule for replies: on what it does what, and where it stands."""

    rule: str
    section: str
    when: str
    does: str
    where: str


class Ceiling(msgspec.Struct, frozen=True):
    """What one limit allows, in transactions a second; None where that depends on the peer."""

    limit: str
    per_s: float | None
    text: str


class Explanation(msgspec.Struct, frozen=True):
    """All that `mailrail explain` knows without asking a shard."""

    destination: str
    kind: str
    provider: str
    customer: str
    vmta: str
    keys: list[ExplainedKey]
    ceilings: list[Ceiling]  # lowest first
    binding: str  # in words
    rules: list[ExplainedRule]  # for replies, in the order in which they are asked


def explain(
    policies: PolicySet,
    destination: Destination,
    customer: str = "",
    vmta: str = "",
    *,
    caps: Mapping[str, int] | None = None,
    transaction_s: float | None = None,
) -> Explanation:
    """Explain the policy of a path.

    Args:
        caps: further bounds on its connections, by name ("max_connections of vmta acme-1"); 0 is none.
        transaction_s: how long one transaction takes there, where that was measured.
    """
    policy = policies.effective(destination, customer, vmta)
    ceilings = _ceilings(policy, caps or {}, transaction_s)
    return Explanation(
        destination=destination.name,
        kind=destination.kind,
        provider=destination.provider,
        customer=customer,
        vmta=vmta,
        keys=[
            _explain_key(key, applied) for key, applied in policies.trace(destination, customer, vmta).items()
        ],
        ceilings=ceilings,
        binding=_binding(ceilings),
        rules=[explain_rule(rule) for rule in policies.rules_for(destination).rules],
    )


def explain_rule(rule: ReplyRule) -> ExplainedRule:
    """Return a rule for replies as people read it."""
    where = f"{rule.origin.file}:{rule.origin.line}"
    return ExplainedRule(rule.name, rule.header, rule.conditions(), rule.describe(), where)


def format_explanation(explanation: Explanation) -> str:
    """Return the explanation as text for a terminal."""
    title = f"destination {explanation.destination} ({explanation.kind})"
    for kind, name in (("customer", explanation.customer), ("vmta", explanation.vmta)):
        title += f", {kind} {name}" if name else ""
    lines = [title, ""]
    width = max(len(key.key) for key in explanation.keys)
    for key in explanation.keys:
        lines.append(f"  {key.key:<{width}} = {_format_value(key.in_force)}")
        lines += [f"  {'':<{width}}   over {_format_value(value)}" for value in key.overridden]
    lines += ["", "throughput of the path"]
    lines += [f"  {ceiling.text}" for ceiling in explanation.ceilings]
    return "\n".join([*lines, f"  binds: {explanation.binding}"])


def format_raw(value: Any) -> str:
    """Return a raw value as TOML writes it."""
    if isinstance(value, str):
        return msgspec.json.encode(value).decode()
    if isinstance(value, list):
        return "[" + ", ".join(format_raw(item) for item in value) + "]"
    return show(value)


def _format_value(value: ExplainedValue) -> str:
    return f"{value.value}    {value.layer} {value.file}:{value.line}"


def _explain_key(key: str, applied: list[Applied]) -> ExplainedKey:
    values = [
        ExplainedValue(format_raw(setting.raw), layer, setting.origin.file, setting.origin.line)
        for layer, setting in reversed(applied)
    ]
    return ExplainedKey(key, values[0], values[1:])


def _ceilings(policy: Policy, caps: Mapping[str, int], transaction_s: float | None) -> list[Ceiling]:
    found = [_connections_ceiling(policy, caps, transaction_s)]
    if policy.max_message_rate is not None:
        per_s = policy.max_message_rate.per_s
        found.append(_ceiling("max_message_rate", per_s, format_rate(policy.max_message_rate)))
    if policy.message_interval_s > 0:
        found.append(_ceiling("message_interval", 1 / policy.message_interval_s, "one at a time"))
    if policy.max_connection_rate is not None:
        per_s = policy.max_connection_rate.per_s * policy.max_messages_per_connection
        detail = (
            f"{format_rate(policy.max_connection_rate)}, {policy.max_messages_per_connection} messages each"
        )
        found.append(_ceiling("max_connection_rate", per_s, detail))
    return sorted(found, key=lambda ceiling: (ceiling.per_s is None, ceiling.per_s))


def _connections_ceiling(policy: Policy, caps: Mapping[str, int], transaction_s: float | None) -> Ceiling:
    name, sessions = "max_connections", policy.max_connections
    for cap, limit in caps.items():
        if 0 < limit < sessions:
            name, sessions = cap, limit
    in_flight = sessions
    if transaction_s:
        return _ceiling(
            name, in_flight / transaction_s, f"{sessions} sessions, {transaction_s * 1000:.0f} ms a message"
        )
    text = f"{name}: {sessions} sessions, so {in_flight} messages in the time that the peer takes for one"
    return Ceiling(name, None, text)


def _ceiling(limit: str, per_s: float, detail: str) -> Ceiling:
    return Ceiling(limit, per_s, f"{limit}: {_format_per_s(per_s)} ({detail})")


def _binding(ceilings: list[Ceiling]) -> str:
    """Name the lowest ceiling; where the peer's speed is not known, say what it would have to be."""
    lowest = ceilings[0]
    if lowest.per_s is None:
        return f"{lowest.limit}; nothing else limits the path"
    unknown = next((ceiling for ceiling in ceilings if ceiling.per_s is None), None)
    bound = f"{lowest.limit}, {_format_per_s(lowest.per_s)}"
    return f"{bound}, unless the peer is so slow that {unknown.limit} does" if unknown else bound


def _format_per_s(per_s: float) -> str:
    """Return a rate in the unit that people would count in."""
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        if per_s * seconds >= 1:
            return (
                f"{per_s * seconds:,.4g}/{unit}"
                if per_s * seconds < 1000
                else f"{per_s * seconds:,.0f}/{unit}"
            )
    return f"{per_s * 86400:,.4g}/d"
