"""The whole engine as processes of its own: started, looked at, told, killed by id.

Owns: every process that it started; `stop` and `close` leave none behind.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import zstandard

from engine.rig.processes import read_tree
from tests.e2e.configuration import Configuration

START_S = 20.0
STOP_S = 20.0
POLL_S = 0.02


def wait_until(is_so: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Return the first true value of `is_so()`; fail with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = is_so()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(POLL_S)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: str | None) -> Any:
    """Return the answer to one request: JSON, or the text of /metrics."""
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse().read()
    finally:
        connection.close()
    return answer.decode() if path == "/metrics" else json.loads(answer)


class EngineProcess:
    """`mailrail serve` on one configuration."""

    def __init__(self, configuration: Configuration, *, prefix: Sequence[str] = (), **options: Any) -> None:
        """Args:
        prefix: a command that runs the engine (setpriv, strace, unshare).
        options: for subprocess.Popen.
        """
        self.configuration = configuration
        self._prefix = list(prefix)
        self._options = options
        self._child: subprocess.Popen[bytes] | None = None
        self.log_file = configuration.root / "engine.log"

    # -- life -------------------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> EngineProcess:
        """Write the configuration and start; wait until every shard serves."""
        self.configuration.write()
        command = [*self._prefix, sys.executable, "-m", "engine", "serve", "-c", self.configuration.file]
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                **self._options,
            )
        if wait:
            self.wait_up()
        return self

    def wait_up(self, timeout_s: float = START_S) -> None:
        """Wait until the admin API says that every shard is up."""
        wait_until(self._is_up, timeout_s, f"engine up; its log ends:\n{self.log_tail()}")

    def _is_up(self) -> bool:
        assert self.returncode is None, f"the engine ended ({self.returncode}):\n{self.log_tail()}"
        with contextlib.suppress(OSError, http.client.HTTPException):
            shards = self.get("/status").get("shards", ())
            return bool(shards) and all(shard["is_up"] for shard in shards)
        return False

    def stop(self, timeout_s: float = STOP_S) -> int:
        """Ask for a graceful stop; return the exit status."""
        if self.returncode is None:
            self.signal(signal.SIGTERM)
        return self.wait_ended(timeout_s)

    def wait_ended(self, timeout_s: float = STOP_S) -> int:
        """Wait for the supervisor's end; return its exit status."""
        assert self._child is not None
        return self._child.wait(timeout_s)

    def close(self) -> None:
        """End whatever still runs, and wait for the shards to be gone."""
        if self._child is None:
            return
        tree = self.tree() if self.returncode is None else []
        for pid in reversed(tree):
            _kill(pid)
        if self.returncode is None:
            self._child.kill()
        self._child.wait(STOP_S)
        wait_until(lambda: not any(map(_is_running, tree)), STOP_S, f"end of {tree}")

    def kill_supervisor(self) -> None:
        """Kill -9 the supervisor; its shards have to end by themselves."""
        shards = self.shard_pids()
        assert self._child is not None
        _kill(self.pid)
        self._child.wait(STOP_S)
        wait_until(
            lambda: not any(map(_is_running, shards)), 5.0, f"shards {shards} end with their supervisor"
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        os.kill(self.pid, number)

    @property
    def returncode(self) -> int | None:
        return None if self._child is None else self._child.poll()

    @property
    def pid(self) -> int:
        """The supervisor: the engine itself, below whatever `prefix` runs it."""
        assert self._child is not None
        if not self._prefix:
            return self._child.pid
        for pid in read_tree(self._child.pid):
            words = command_line(pid)
            if "serve" in words and any(word.endswith("python") or "/python" in word for word in words[:1]):
                return pid
        return self._child.pid

    def tree(self) -> list[int]:
        """Return the supervisor and everything below it."""
        assert self._child is not None
        return read_tree(self._child.pid)

    def shard_pids(self) -> dict[int, int]:
        """Return process ids of shards, by their id: from the process tree, so also while they start."""
        return {pid: pid for pid in read_tree(self.pid)[1:] if "_shard" in command_line(pid)}

    # -- the admin API ----------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """Return the answer of the admin API to GET."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """Return the answer of the admin API to POST."""
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None) -> Any:
        return ask(_UnixConnection(self.configuration.data_dir / "admin.sock"), method, path, body)

    def generation(self) -> int:
        """Return the generation of the configuration in force."""
        return int(self.get("/status")["generation"])

    def reload(self) -> None:
        """Write the configuration and reload it by SIGHUP; wait until it is in force."""
        before = self.generation()
        self.configuration.write()
        self.signal(signal.SIGHUP)
        wait_until(lambda: self.generation() > before, 15.0, "reload")

    # -- what it left ------------------------------------------------------------------------------

    def log_tail(self, size: int = 4000) -> str:
        return self.log_file.read_text(errors="replace")[-size:] if self.log_file.exists() else ""

    def events(self) -> list[dict[str, Any]]:
        """Return every event on record, rotated files too."""
        return [json.loads(line) for line in self._event_lines()]

    def _event_lines(self) -> Iterator[bytes]:
        directory = self.configuration.data_dir / "events"
        for path in sorted(directory.glob("events-*.jsonl*")):
            if path.suffix == ".tmp" or path.with_name(path.name + ".zst").exists():
                continue
            octets = path.read_bytes()
            if path.suffix == ".zst":
                octets = zstandard.ZstdDecompressor().decompressobj().decompress(octets)
            yield from (line for line in octets.split(b"\n") if line.endswith(b"}"))

    def events_of(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the events of these kinds."""
        return [event for event in self.events() if event["event"] in kinds]


def _is_running(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"


def command_line(pid: int) -> list[str]:
    """Return the words that a process was started with; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


kill_process = _kill
