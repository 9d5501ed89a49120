"""Processes of the rig: started, awaited, ended by id; their CPU and memory from /proc.

Owns: every process it started; `stop` ends them, politely and then not.
Never: ends a process that it did not start.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

STOP_GRACE_S = 15.0  # between SIGTERM and SIGKILL
SAMPLE_S = 0.5  # how often memory is looked at: 200 processes of Postfix take 5 ms to read
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class RigProcess:
    """A child of ours."""

    def __init__(self, arguments: Sequence[str], **options: Any) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self._child = subprocess.Popen(self.arguments, **options)
        self.pid = self._child.pid

    def wait(self, timeout_s: float) -> int:
        """Return the exit status; ends the process when the time is over."""
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.stop()
            raise

    def is_alive(self) -> bool:
        """Say whether it still runs."""
        return self._child.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._child.poll()

    def read_line(self) -> str:
        """Return the next line of its stdout ("" at the end)."""
        assert self._child.stdout is not None
        return str(self._child.stdout.readline())

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End it by SIGTERM, after `grace_s` by SIGKILL, and wait for its descendants to end too."""
        descendants = [(pid, started_at(pid)) for pid in read_tree(self.pid)[1:]] if self.is_alive() else []
        if self.is_alive():
            self._child.terminate()
            try:
                self._child.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
        _wait_gone(descendants, grace_s)


@contextlib.contextmanager
def running(arguments: Sequence[str], **options: Any) -> Iterator[RigProcess]:
    """Start a process for the length of a with block."""
    process = RigProcess(arguments, **options)
    try:
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def running_sink(*options: str | Path) -> Iterator[RigProcess]:
    """Start `python -m engine.rig.sink` and wait until it listens."""
    arguments = [sys.executable, "-m", "engine.rig.sink", *map(str, options)]
    with running(arguments, stdout=subprocess.PIPE, text=True) as sink:
        if "ready" not in sink.read_line():
            raise RuntimeError(f"the sink did not start: {' '.join(sink.arguments)}")
        yield sink


def run_source(*options: str | Path, timeout_s: float = 900.0) -> dict[str, Any]:
    """Run `python -m engine.rig.source` to its end and return its account."""
    arguments = [sys.executable, "-m", "engine.rig.source", *map(str, options)]
    ended = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, timeout=timeout_s, check=False)
    if not ended.stdout.strip():
        raise RuntimeError(f"the source failed ({ended.returncode}): {' '.join(arguments)}")
    report = json.loads(ended.stdout)
    assert isinstance(report, dict)
    return report


def wait_port(host: str, port: int, timeout_s: float, *, greeting: bool = True) -> None:
    """Wait until an SMTP server greets (or just accepts) there. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 2) as link:
            link.settimeout(2)
            if not greeting or link.recv(512).startswith(b"220"):
                if greeting:
                    link.sendall(b"QUIT\r\n")
                return
        time.sleep(0.1)
    raise TimeoutError(f"nobody greets at {host}:{port} after {timeout_s:g} s")


def read_tree(root: int) -> list[int]:
    """Return the process ids of `root` and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(_stat_fields(int(entry))[1], []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def read_cpu_s(root: int) -> float:
    """Return user and system seconds of the tree, children that have ended counted."""
    ticks = 0
    for pid in read_tree(root):
        with contextlib.suppress(OSError):
            ticks += sum(_stat_fields(pid)[11:15])  # utime stime cutime cstime
    return ticks / _TICKS_PER_S


def read_memory(root: int) -> tuple[int, int]:
    """Return anonymous and file-backed resident bytes of the tree."""
    anonymous = mapped = 0
    for pid in read_tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    anonymous += int(line.split()[1]) * 1024
                elif line.startswith("RssFile:"):
                    mapped += int(line.split()[1]) * 1024
    return anonymous, mapped


class MemoryWatch:
    """Samples a tree's anonymous memory in a thread and keeps the peak."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak_bytes = self.peak_file_bytes = 0

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            anonymous, mapped = read_memory(self._root)
            self.peak_bytes = max(self.peak_bytes, anonymous)
            self.peak_file_bytes = max(self.peak_file_bytes, mapped)
            if self._ended.wait(SAMPLE_S):
                return


def _wait_gone(processes: list[tuple[int, int]], grace_s: float) -> None:
    """Wait for processes (id, start) that are not our children; those that stay are ended by SIGKILL."""
    for number in (0, signal.SIGKILL):
        deadline = time.monotonic() + grace_s
        for pid, started in processes:
            if number and started and started_at(pid) == started:
                os.kill(pid, number)
        while any(started and started_at(pid) == started for pid, started in processes):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)


def started_at(pid: int) -> int:
    """Return a process's start in ticks since boot: it tells it from a later one of that id. 0: gone."""
    try:
        fields = _stat_fields(pid)
        return 0 if fields[0] else fields[19]
    except OSError:
        return 0


def _stat_fields(pid: int) -> list[int]:
    """Fields of /proc/PID/stat from the third on: [0] is 1 for a zombie, [1] the parent, [11:15] the times,
    [19] the start.
    """
    text = Path(f"/proc/{pid}/stat").read_text()
    words = text[text.rindex(")") + 2 :].split()
    return [int(words[0] == "Z"), *map(int, words[1:20])]
