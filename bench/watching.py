"""Watching a sink until it has seen enough.

Owns: the patience of benches that wait for messages.
"""

from __future__ import annotations

import time
from pathlib import Path

from engine.rig.control import ask_sink

TIMEOUT_S = 300.0


def wait_seen(control: Path, wanted: float, poll_s: float) -> tuple[float, int]:
    """Return when the sink had seen so many messages (monotonic), and how many it had by then."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        count = ask_sink(control, {"do": "count"})["unique"]
        if count >= wanted:
            return time.monotonic(), count
        time.sleep(poll_s)
    raise SystemExit(f"the sink has not seen {wanted:,.0f} messages in {TIMEOUT_S:g} s")
