"""`mailrail demo` as a user runs it, small: every limit binds, the sinks agree."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from engine.demo.scenario import MIN_MESSAGES

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(150)]

COMMAND = [sys.executable, "-m", "engine", "demo"]


def test_smallest_demo_is_good_by_the_sinks_account() -> None:
    ended = subprocess.run(
        [*COMMAND, "--messages", str(MIN_MESSAGES), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    account = json.loads(ended.stdout)
    assert account["findings"] == [], ended.stderr
    assert (ended.returncode, account["is_good"]) == (0, True)
    assert (account["arrived"], account["lost"], account["duplicates"]) == (MIN_MESSAGES, 0, 0)
    assert len(account["sources"]) == 12


def test_kept_demo_says_where_to_look_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file:
        demo = subprocess.Popen(
            [*COMMAND, "--messages", str(MIN_MESSAGES), "--keep"], stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + 60
        while "curl -s" not in out.read_text() and demo.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        url = next(word for word in out.read_text().split() if word.endswith("/metrics"))
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"mailrail_messages_total" in answer.read()
        demo.send_signal(signal.SIGINT)
        demo.wait(40)
    finally:
        demo.kill()
        root = Path(out.read_text().partition("status -c ")[2].split()[0]).parent
        shutil.rmtree(root, ignore_errors=True)  # where a limit did not bind, the files stay
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=10)
