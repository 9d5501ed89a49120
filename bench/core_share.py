"""A share of a core for one process: by cgroup where there is one, else by stopping and continuing it.

Owns: the control groups that it makes; they are gone when the block ends (their processes must be).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PERIOD_US = 20_000  # short, so that a limited shard still answers in time
GONE_TIMEOUT_S = 5.0
V1 = Path("/sys/fs/cgroup/cpu")
V2 = Path("/sys/fs/cgroup")


def describe_way() -> str:
    """Say how a share is kept on this machine."""
    if _has_v1():
        return "cgroup v1 (cpu.cfs_quota_us)"
    if _has_v2():
        return "cgroup v2 (cpu.max)"
    return "SIGSTOP and SIGCONT in turn: no cpu cgroup can be made here"


def _has_v1() -> bool:
    return (V1 / "cpu.cfs_quota_us").exists() and os.access(V1, os.W_OK)


def _has_v2() -> bool:
    controllers = V2 / "cgroup.subtree_control"
    return controllers.exists() and "cpu" in controllers.read_text().split() and os.access(V2, os.W_OK)


@contextlib.contextmanager
def limited(pid: int, share: float) -> Iterator[None]:
    """Keep a process, its threads and what it starts to `share` of one core."""
    if not _has_v1() and not _has_v2():
        with _by_signals(pid, share):
            yield
        return
    is_v1 = _has_v1()
    group = (V1 if is_v1 else V2) / f"mailrail-bench-{pid}"
    group.mkdir()
    try:
        quota_us = int(PERIOD_US * share)
        if is_v1:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """Let go of what is left in the group, then take it away."""
    deadline = time.monotonic() + GONE_TIMEOUT_S
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):
            (group.parent / "cgroup.procs").write_text(pid)
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def _by_signals(pid: int, share: float) -> Iterator[None]:
    ended = threading.Event()
    period_s = PERIOD_US / 1e6

    def take_turns() -> None:
        while not ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                time.sleep(period_s * share)
                os.kill(pid, signal.SIGSTOP)
            time.sleep(period_s * (1 - share))

    thread = threading.Thread(target=take_turns, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
