"""Ask a running sink for its account: one JSON line out, one JSON line back, over a unix socket.

Requests: {"do": "report", "windows": [1.0, 60.0]} · {"do": "count"} · {"do": "reset"} ·
{"do": "script", "rules": [...]} · {"do": "delay", "seconds": 0.05}.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

ANSWER_TIMEOUT_S = 60.0  # judging a million instants takes a second or two


def ask_sink(path: Path | str, request: dict[str, Any]) -> dict[str, Any]:
    """Send one request and return the answer. Raises OSError when no sink listens there."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(ANSWER_TIMEOUT_S)
        link.connect(str(path))
        link.sendall(json.dumps(request).encode() + b"\n")
        with link.makefile("rb") as answers:
            answer = json.loads(answers.readline())
    if not isinstance(answer, dict) or "error" in answer:
        raise ValueError(f"sink: {answer}")
    return answer
