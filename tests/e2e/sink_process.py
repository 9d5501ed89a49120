"""The sink as a process, and its log: what reached it, when, from where.

Owns: that process. Judges nothing (judging does).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from engine.rig.control import ask_sink
from tests.e2e.engine_process import wait_until

ROOT = Path(__file__).resolve().parents[2]
LOG_LAG_S = 0.5  # the sink writes its log out every 0.2 s


class Arrival(NamedTuple):
    """One end-of-message at the sink; `at` is monotonic, the same clock in every process of a host."""

    at: float
    listen: str
    source: str
    ehlo: str
    recipients: tuple[str, ...]
    sender: str
    id: str
    is_taken: bool
    peer: str


class Link(NamedTuple):
    """A connection that began (+1) or ended (-1)."""

    at: float
    listen: str
    source: str
    change: int
    peer: str


class SinkProcess:
    """`python -m bench.sink` on some addresses."""

    def __init__(self, root: Path, port: int, *listen: str, options: tuple[str, ...] = ()) -> None:
        self.root = root
        self.port = port
        self.listen = listen
        self.log_file = root / "sink.log"
        self._control = root / "sink.sock"
        self._options = options
        self._child: subprocess.Popen[str] | None = None

    def start(self, rules: list[dict[str, Any]] | None = None) -> SinkProcess:
        """Start and wait until it listens; `rules` as engine.rig.script has them."""
        command = [sys.executable, "-m", "bench.sink", "--control", self._control, "--log", self.log_file]
        for address in self.listen:
            command += ["--listen", f"{address}:{self.port}"]
        if rules is not None:
            script = self.root / "sink-script.json"
            script.write_text(json.dumps(rules))
            command += ["--script", script]
        command += ["--report", self.root / "sink-report.json", "--seconds", "300", *self._options]
        self._child = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            process_group=0,
        )
        assert self._child.stdout is not None
        assert "ready" in self._child.stdout.readline(), "the sink did not start"
        return self

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Put a question to it (engine.rig.control)."""
        return ask_sink(self._control, request)

    def count(self) -> int:
        """Return how many messages it has taken."""
        return int(self.ask({"do": "count"})["messages"])

    def wait_messages(self, count: int, timeout_s: float = 20.0) -> None:
        """Wait until it has taken so many messages."""
        wait_until(lambda: self.count() >= count, timeout_s, f"{count} messages at the sink")

    def use_rules(self, rules: list[dict[str, Any]]) -> None:
        """Answer by these rules from now on (connections that are open keep theirs where they had none)."""
        self.ask({"do": "script", "rules": rules})

    def arrivals(self) -> list[Arrival]:
        """Return every end-of-message so far, in order."""
        return [
            Arrival(
                row["t"],
                row["listen"],
                row["source"],
                row["ehlo"],
                tuple(row["rcpt"]),
                row["sender"],
                row["id"],
                row["taken"],
                row["peer"],
            )
            for row in self._rows()
            if row["kind"] == "message"
        ]

    def links(self) -> list[Link]:
        """Return every beginning and end of a connection so far, in order."""
        return [
            Link(row["t"], row["listen"], row["source"], 1 if row["kind"] == "open" else -1, row["peer"])
            for row in self._rows()
            if row["kind"] in ("open", "close")
        ]

    def _rows(self) -> list[dict[str, Any]]:
        time.sleep(LOG_LAG_S)
        lines = self.log_file.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """End it."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()
