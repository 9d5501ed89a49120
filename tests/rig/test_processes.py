from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engine.rig.processes import (
    MemoryWatch,
    RigProcess,
    read_cpu_s,
    read_memory,
    read_tree,
    started_at,
    wait_port,
)

BUSY = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.3: pass\n"
# A parent whose child burns CPU and ends, and another child that stays.
FAMILY = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-c", {BUSY!r}], check=True)
stays = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(stays.pid, flush=True)
time.sleep(60)
"""


def test_cpu_of_ended_children_counts_and_descendants_end_with_their_root() -> None:
    root = RigProcess([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True)
    grandchild = int(root.read_line())
    assert set(read_tree(root.pid)) == {root.pid, grandchild}
    assert read_cpu_s(root.pid) >= 0.25
    assert read_memory(root.pid)[0] > 1_000_000
    root.stop(grace_s=1.0)
    assert not root.is_alive()
    assert started_at(grandchild) == 0


def test_memory_watch_keeps_the_peak() -> None:
    with MemoryWatch(os.getpid()) as watch:
        pass
    assert watch.peak_bytes > 1_000_000


def test_wait_port_gives_up() -> None:
    with pytest.raises(TimeoutError, match="nobody greets"):
        wait_port("127.0.0.31", 21698, 0.2)
