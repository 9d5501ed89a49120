"""`mailrail drain --wait`: watch an engine become empty; and what `drain` and `retry` did, in words.

Owns: when a drain is over, and the progress that is shown meanwhile.
"""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.cli.api import AdminApi

POLL_S = 0.5


def count_stored(status: dict[str, Any]) -> int:
    """Return how many deliveries the shards hold, by /status."""
    return int((status.get("counts") or {}).get("stored", 0))


def wait_drained(api: AdminApi, timeout_s: float, *, is_shown: bool) -> dict[str, Any]:
    """Wait until nothing is stored. Returns {"is_draining", "is_empty", "stored"}; 0 s is no time-out."""
    started = time.monotonic()
    left = count_stored(api.get("/status"))
    with _make_progress(is_shown) as progress:
        task = progress.add_task("draining", total=left)
        most = left
        while left and not (timeout_s and time.monotonic() - started > timeout_s):
            time.sleep(POLL_S)
            left = count_stored(api.get("/status"))
            most = max(most, left)
            progress.update(task, total=most, completed=most - left)
    return {"is_draining": True, "is_empty": not left, "stored": left}


def describe_drain(answer: dict[str, Any]) -> str:
    """Return the state in words."""
    if not answer.get("is_draining"):
        return "taking mail again"
    if "stored" not in answer:
        return "draining: new mail is refused, what is stored goes on being delivered"
    left = answer["stored"]
    return f"draining: {left:,} deliveries are left" if left else "drained: nothing is left"


def describe_retry(answer: dict[str, Any]) -> str:
    """Return what became of a message's deliveries in words."""
    parts = [f"{answer.get('due', 0)} due now"]
    if answer.get("released"):
        parts[0] += f" ({answer['released']} held as poison let go)"
    if answer.get("under_way"):
        parts.append(f"{answer['under_way']} on their way already")
    return f"{answer.get('id', '')}: {', '.join(parts)}"


def _make_progress(is_shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not is_shown,
        transient=True,
    )
