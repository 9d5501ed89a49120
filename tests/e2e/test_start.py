"""A start that comes to nothing at first, as systemd sees it."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(60)]

# Python runs this module in each process before anything else: shards crash for as long as a file is there.
CRASH = """
import os, sys
if "_shard" in sys.orig_argv and os.path.exists({flag!r}):
    os.kill(os.getpid(), 11)
"""


def test_an_engine_whose_shards_all_crash_at_start_is_not_ready_until_one_serves(
    root: Path, configuration: Configuration, run_engine: Callable[..., EngineProcess]
) -> None:
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    flag = root / "crash"
    flag.touch()
    (root / "crashing").mkdir()
    (root / "crashing" / "sitecustomize.py").write_text(CRASH.format(flag=str(flag)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(root / "notify"))
        systemd.settimeout(20.0)
        environment = {"NOTIFY_SOCKET": str(root / "notify"), "PYTHONPATH": str(root / "crashing")}
        engine = run_engine(wait=False, env={**os.environ, **environment})
        assert systemd.recv(4096) == b"STATUS=0 of 2 shards up: shard 0, 1: SIGSEGV"
        wait_until(lambda: "no shard serves yet" in engine.log_tail(), 10.0, "a line in the log")
        wait_until(lambda: engine.get("/status")["shards"][0]["starts"] > 2, 20.0, "another try")
        assert engine.returncode is None
        flag.unlink()
        told = [systemd.recv(4096).decode()]
        while not told[-1].startswith("READY=1"):
            told.append(systemd.recv(4096).decode())
        assert all(each.startswith("STATUS=0 of 2 shards up") for each in told[:-1])
    engine.wait_up()
    with smtplib.SMTP("127.0.0.1", port) as client:
        assert client.noop()[0] == 250
    engine.signal(signal.SIGTERM)
    assert engine.wait_ended() == 0
