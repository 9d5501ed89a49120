"""What deploy/ sets in the kernel and in PAM: every key exists, every line has the form that is read."""

from __future__ import annotations

import re
from pathlib import Path

from engine.net.listen import BACKLOG
from engine.supervisor.serve import MAX_DESCRIPTORS

DEPLOY = Path(__file__).parents[2] / "deploy"


def read_rows(file: Path) -> list[str]:
    lines = [line.strip() for line in file.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def read_sysctl() -> dict[str, str]:
    rows = [row.partition("=") for row in read_rows(DEPLOY / "sysctl.d" / "90-mailrail.conf")]
    return {key.strip(): value.strip() for key, _, value in rows}


def test_every_sysctl_key_is_one_of_this_kernel() -> None:
    keys = read_sysctl()
    assert keys
    for key, value in keys.items():
        now = Path("/proc/sys", *key.split(".")).read_text().split()
        assert len(value.split()) == len(now), key
        assert all(re.fullmatch(r"\d+", each) for each in value.split()), key


def test_sysctl_lets_the_engine_have_its_backlog_and_its_descriptors() -> None:
    keys = read_sysctl()
    assert int(keys["net.core.somaxconn"]) >= BACKLOG
    assert int(keys["fs.nr_open"]) >= MAX_DESCRIPTORS


def test_limits_are_lines_that_pam_reads_and_allow_what_the_engine_asks_for() -> None:
    rows = [row.split() for row in read_rows(DEPLOY / "limits.d" / "90-mailrail.conf")]
    assert all(len(row) == 4 and row[1] in ("hard", "soft", "-") for row in rows)
    assert {row[2]: row[3] for row in rows} == {"nofile": str(MAX_DESCRIPTORS), "core": "0"}
    assert {row[0] for row in rows} == {"mailrail"}
