"""`mailrail status`, `queues`, `paths`, `messages`, `message`: what the engine says, for people.

Owns: which columns come first and what stands under a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from engine.cli.tables import flatten, format_cell, format_moment, heading, make_table

_FIRST = {
    "queues": ("customer", "domain", "messages", "ready", "due_at", "reason"),
    "paths": (
        "vmta",
        "destination",
        "customer",
        "sessions",
        "idle",
        "opening",
        "connections",
        "max_connections",
        "ready",
        "reason",
    ),
    "messages": (
        "id",
        "customer",
        "sender",
        "recipients",
        "domain",
        "pool",
        "state",
        "attempts",
        "accepted_at",
        "due_at",
        "last_reply",
    ),
}
_SHARD_FIRST = ("shard", "state", "pid", "started_at", "starts", "last_death", "refusal")
_QUARANTINE_FIRST = ("store", "shard", "quarantined_at", "state", "restored", "lost", "reason")
_LISTENER_FIRST = ("name", "protocol", "listen", "path", "customer", "trusted")


def show_rows(console: Console, what: str, answer: Mapping[str, Any], now: float) -> None:
    """Print the rows of `what`, and what they leave out."""
    rows = answer[what]
    if rows:
        console.print(make_table(rows, _FIRST[what], now))
    else:
        console.print(f"no {what}")
    if not answer.get("is_whole", True):
        console.print(f"there are more than these {len(rows)}: raise --limit, or ask for fewer by an option")
    show_unanswered(console, answer)


def show_status(console: Console, answer: Mapping[str, Any], now: float) -> None:
    """Print the engine's status."""
    state = _describe_state(answer)
    started = answer.get("started_at")
    since = f", started {format_moment(started, now)}" if started else ""
    console.print(f"Mailrail {state}{since}, configuration generation {answer.get('generation', '-')}")
    shards = [_shard_row(shard) for shard in answer.get("shards", ())]
    if shards:
        console.print()
        console.print(make_table(shards, _SHARD_FIRST, now))
    if quarantine := answer.get("quarantine", ()):
        console.print()
        console.print("stores in quarantine:", style="yellow")
        console.print(make_table(quarantine, _QUARANTINE_FIRST, now))
    listeners = answer.get("listeners", ())
    if listeners:
        console.print()
        console.print(make_table([_listener_row(each) for each in listeners], _LISTENER_FIRST, now))
    counts = flatten(answer.get("counts") or {})
    if counts:
        console.print()
        console.print(make_table(_count_rows(counts, now), ("count", "value"), now))
    show_unanswered(console, answer)


def show_message(console: Console, answer: Mapping[str, Any], now: float) -> None:
    """Print one message, field by field, and its deliveries as a table."""
    tables = {name: value for name, value in answer.items() if _is_rows(value)}
    plain = [name for name in answer if name not in tables]
    width = max((len(heading(name)) for name in plain), default=0)
    for name in plain:
        console.print(f"{heading(name):<{width}}  {format_cell(name, answer[name], now)}")
    for name, rows in tables.items():
        console.print()
        console.print(make_table(rows, _FIRST["messages"], now, heading(name)))


def show_unanswered(console: Console, answer: Mapping[str, Any]) -> None:
    """Name the shards that gave no answer."""
    for shard, error in answer.get("unanswered", {}).items():
        console.print(f"shard {shard} did not answer: {error}", style="yellow")


def _describe_state(answer: Mapping[str, Any]) -> str:
    """Say whether mail is taken, and how much of the engine is there to take it."""
    shards = answer.get("shards", ())
    up = sum(bool(shard.get("is_up")) for shard in shards)
    if shards and not up:
        return f"takes no mail: 0 of {len(shards)} shards up"
    state = "draining: new mail is refused" if answer.get("is_draining") else "taking mail"
    unanswered = answer.get("unanswered", {})
    silent = sum(bool(each.get("is_up")) and str(each.get("shard")) in unanswered for each in shards)
    mute = f", {silent} of which did not answer" if silent else ""
    return f"{state}, {up} of {len(shards)} shards up{mute}" if shards else state


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _shard_row(shard: Mapping[str, Any]) -> dict[str, Any]:
    state = "up" if shard.get("is_up") else "down"
    return {
        "state": state,
        **{name: value for name, value in shard.items() if name not in ("counts", "is_up")},
    }


def _listener_row(listener: Any) -> Mapping[str, Any]:
    return listener if isinstance(listener, Mapping) else {"name": listener}


def _count_rows(counts: Mapping[str, Any], now: float) -> list[dict[str, Any]]:
    return [
        {"count": heading(name), "value": format_cell(name, value, now)} for name, value in counts.items()
    ]
