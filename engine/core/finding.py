"""What `mailrail check` has to say about one line of a file."""

from __future__ import annotations

from typing import NamedTuple

from engine.core.errors import Origin


class Finding(NamedTuple):
    """`severity` is "error" (can't do what it says) or "warning" (does, but hardly what was meant)."""

    severity: str
    origin: Origin
    text: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.severity}: {self.text}"
