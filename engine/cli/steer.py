"""`mailrail drain --wait`: watch an engine become empty.

Owns: when a drain is over, and the progress that is shown meanwhile.
"""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.cli.api import AdminApi

POLL_S = 0.5


def count_messages(status: dict[str, Any]) -> int:
    """Return how many messages the shards hold, by /status."""
    return int((status.get("counts") or {}).get("messages", 0))


def wait_drained(api: AdminApi, timeout_s: float, *, is_shown: bool) -> dict[str, Any]:
    """Wait until nothing is stored. Returns {"is_draining", "is_empty", "messages"}; 0 s is no time-out."""
    started = time.monotonic()
    left = count_messages(api.get("/status"))
    with _make_progress(is_shown) as progress:
        task = progress.add_task("draining", total=left)
        most = left
        while left and not (timeout_s and time.monotonic() - started > timeout_s):
            time.sleep(POLL_S)
            left = count_messages(api.get("/status"))
            most = max(most, left)
            progress.update(task, total=most, completed=most - left)
    return {"is_draining": True, "is_empty": not left, "messages": left}


def describe_drain(answer: dict[str, Any]) -> str:
    """Return the state in words."""
    if not answer.get("is_draining"):
        return "taking mail again"
    if "messages" not in answer:
        return "draining: new mail is refused, what is stored goes on being delivered"
    left = answer["messages"]
    return f"draining: {left:,} messages are left" if left else "drained: nothing is left"


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
