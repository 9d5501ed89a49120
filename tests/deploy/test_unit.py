"""The systemd unit: systemd itself reads it, rates it, and its system call filter lets the engine run."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.settings.model import EngineSettings
from engine.supervisor.serve import MAX_DESCRIPTORS
from engine.supervisor.supervisor import STOP_MARGIN_S

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = (DEPLOY / "mailrail.service").read_text()
MAX_EXPOSURE = (
    2.0  # of 10, as systemd 252 counts; 1.5 when this was written, a service without hardening has 9.6
)


def setting(key: str) -> str:
    found = re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)
    assert len(found) == 1, f"{key}: {found}"
    return str(found[0])


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, naming a program that is on every machine: `verify` looks for it."""
    file = tmp_path / "mailrail.service"
    program = shutil.which("true")
    assert program is not None
    file.write_text(UNIT.replace("/opt/mailrail/bin/mailrail", program))
    return file


@pytest.mark.stranger("systemd")
def test_systemd_finds_nothing_to_say_about_the_unit(stranger: Callable[[str], str], unit: Path) -> None:
    assert run(stranger("systemd-analyze"), "verify", "--man=false", str(unit)) == ""


@pytest.mark.stranger("systemd")
def test_systemd_rates_the_unit_as_well_hardened(stranger: Callable[[str], str], unit: Path) -> None:
    said = run(stranger("systemd-analyze"), "security", "--offline=true", "--no-pager", str(unit))
    found = re.search(r"Overall exposure level for mailrail.service: (\d+\.\d+)", said)
    assert found is not None, said
    assert float(found[1]) <= MAX_EXPOSURE


def test_unit_starts_the_command_and_reloads_by_sighup() -> None:
    assert setting("Type") == "notify"
    assert setting("ExecStart").split()[1:] == ["serve", "-c", "/etc/mailrail/mailrail.toml"]
    assert setting("ExecReload") == "/bin/kill -HUP $MAINPID"


def test_unit_leaves_the_shards_to_the_supervisor_and_gives_it_the_time_it_takes() -> None:
    assert setting("KillMode") == "mixed"
    grace_s = EngineSettings(hostname="a", data_dir="/a").grace_s
    assert float(setting("TimeoutStopSec")) >= grace_s + 2 * STOP_MARGIN_S


def test_unit_and_limits_allow_the_descriptors_that_the_engine_asks_for() -> None:
    assert int(setting("LimitNOFILE")) == MAX_DESCRIPTORS


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.stranger("systemd strace")
def test_system_call_filter_lets_the_engine_do_all_that_it_does(
    stranger: Callable[[str], str], trace_of_a_run: str
) -> None:
    used = set(re.findall(r"^\d+ +(\w+)\(", trace_of_a_run, re.MULTILINE))
    assert {"openat", "accept4", "fdatasync", "execve"} <= used
    assert not used - allowed_calls(stranger("systemd-analyze"))
    assert not re.findall(r"^\d+ +mmap\(.*PROT_WRITE.PROT_EXEC.*$", trace_of_a_run, re.MULTILINE)
    assert not re.findall(r"^\d+ +\w*mprotect\(.*PROT_EXEC.*$", trace_of_a_run, re.MULTILINE)
    families = set(re.findall(r"^\d+ +socket(?:pair)?\((AF_\w+)", trace_of_a_run, re.MULTILINE))
    assert families <= set(setting("RestrictAddressFamilies").split())


def allowed_calls(systemd_analyze: str) -> set[str]:
    """Return the system calls that SystemCallFilter leaves."""
    allowed: set[str] = set()
    for group in re.findall(r"^SystemCallFilter=(.*)$", UNIT, re.MULTILINE):
        calls = expand(systemd_analyze, group.removeprefix("~"))
        allowed = allowed - calls if group.startswith("~") else allowed | calls
    return allowed | expand(systemd_analyze, "@default")  # which systemd always allows


def expand(systemd_analyze: str, group: str) -> set[str]:
    """Return the system calls of a group, those of groups in it too."""
    found: set[str] = set()
    for line in run(systemd_analyze, "syscall-filter", group).splitlines()[1:]:
        name = line.strip()
        if name.startswith("@"):
            found |= expand(systemd_analyze, name)
        elif name and not name.startswith("#"):
            found.add(name)
    return found
