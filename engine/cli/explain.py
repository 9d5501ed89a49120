"""`mailrail explain`: the policy of a path, where each value came from, and which limit binds.

The running engine knows a domain's MX hosts and how long transactions take; the files alone know the rest. So
the engine is asked first, and where none runs (or --offline is given) the files answer.

Owns: the answer from the files, and the text of either.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.core.errors import ConfigError, Origin
from engine.loading import Model, build_model, load_texts
from engine.policy.explain import Explanation, explain, format_explanation


def explain_offline(
    config_path: str, domain: str, vmta: str, customer: str, hosts: tuple[str, ...]
) -> Explanation:
    """Explain a path from the files. `hosts`: the domain's MX hosts where they are known, in normal form.

    Raises:
        ConfigError: the files are wrong, or do not know that vmta or customer.
    """
    model = build_model(load_texts(config_path))
    _require_known(config_path, "vmta", vmta, model.settings.vmtas)
    _require_known(config_path, "customer", customer, model.settings.customers)
    site = ",".join(hosts) or domain
    destination = model.policies.destination(domain, site, hosts)
    return explain(model.policies, destination, customer, vmta, caps=find_caps(model, vmta))


def find_caps(model: Model, vmta: str) -> dict[str, int]:
    """Return the caps over everything that bound the connections of a path, too."""
    engine = model.settings.engine
    caps = {
        "max_connections of [engine]": engine.max_connections,
        "max_connections_per_shard of [engine]": engine.max_connections_per_shard,
    }
    if vmta:
        caps[f"max_connections of vmta {vmta}"] = model.settings.vmtas[vmta].max_connections
    return caps


def format_answer(answer: Mapping[str, Any]) -> str:
    """Return an answer as text; its paths, which only a running engine has, are a table of their own.

    Why a domain can't receive mail comes first: no path leads there. Limits follow where they go by its name.
    """
    problem = f"problem: {answer['problem']}" if answer.get("problem") else ""
    if problem and not answer["destination"]:
        return problem
    text = format_explanation(msgspec.convert(answer, Explanation))
    text = f"{problem}\n\n{text}" if problem else text
    found = [f"\n  site: {answer['site']}"] if answer.get("site") else []
    found += [f"\n  security: {line}" for line in answer.get("security", ())]
    found += [
        f"\n  now: {_format_ceiling(path['vmta'], ceiling)}"
        for path in answer.get("paths", ())
        for ceiling in path.get("ceilings", ())
    ]
    return (
        text + "".join(found) + "".join(map(_format_fault, answer.get("peers", ()))) + _format_rules(answer)
    )


def _format_rules(answer: Mapping[str, Any]) -> str:
    """Return which rules for replies there are, in the order of their search, and what is in force."""
    lines = [
        f"\n  {row['rule']}: {row['does']}, on {row['when']}    {row['section']} {row['where']}"
        for row in answer.get("rules", ())
    ]
    if lines:
        lines.insert(0, "\n\nrules for replies, the first that is triggered decides")
    for row in answer.get("reactions", ()):
        until = datetime.fromtimestamp(row["until_at"], UTC)
        lines.append(f"\n  in force: {row['does']}, until {until:%Y-%m-%d %H:%M:%S} UTC: {row['key']}")
        lines.append(f"\n    after {row['reply']}    {row['where']}")
    return "".join(lines)


def _format_ceiling(vmta: str, ceiling: Mapping[str, Any]) -> str:
    bounds = [f"{ceiling['connections']} connections"] if "connections" in ceiling else []
    bounds += [str(ceiling["rate"])] if "rate" in ceiling else []
    return f"{vmta} at most {', '.join(bounds)} ({ceiling['why']})"


def _format_fault(fault: Mapping[str, Any]) -> str:
    until = datetime.fromtimestamp(fault["until_at"], UTC)
    why = f"{fault['terms']}: {fault['detail']}" if fault.get("terms") else fault["detail"]
    return f"\n  {fault['peer']}: {fault['fault']} fails, until {until:%Y-%m-%d %H:%M} UTC ({why})"


def _require_known(config_path: str, kind: str, name: str, known: Mapping[str, Any]) -> None:
    if name and name not in known:
        names = ", ".join(known) or "none"
        raise ConfigError(Origin(config_path, 0), f"there is no {kind} {name!r}; there are: {names}")
