"""The fuzzer's targets: over their seeds, and for a few seconds guided by coverage.

All explorations together stay under 40 s: each has a fixed number of runs and of seconds, whichever ends
first. To look for longer: tests/fuzz/explore.py.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import MAX_INPUT_BYTES, TARGETS
from tests.lacking import lack

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
SEEDS = sorted(path for path in CORPUS.glob("*/*"))
# Seconds by how much there is to find: a start takes about one more. Runs: what a quiet machine does in them.
BUDGET_S = {"server": 8, "client": 8, "frames": 3, "headers": 4, "extensions": 2}
MAX_RUNS = 100_000


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_seed(seed: Path) -> None:
    TARGETS[seed.parent.name](seed.read_bytes())


def test_every_target_has_seeds_and_a_budget() -> None:
    assert {seed.parent.name for seed in SEEDS} == set(TARGETS) == set(BUDGET_S)
    assert sum(BUDGET_S.values()) < 35


@pytest.mark.parametrize("name", TARGETS)
@given(st.binary(max_size=300))
def test_any_octets(name: str, octets: bytes) -> None:
    TARGETS[name](octets)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_explored_octets(name: str, tmp_path: Path) -> None:
    if find_spec("atheris") is None:
        lack("no wheel of atheris for this Python or system")
    options = [
        f"-runs={MAX_RUNS}",
        f"-max_total_time={BUDGET_S[name]}",
        "-seed=1",
        "-timeout=20",
        "-rss_limit_mb=512",
    ]
    options += [f"-max_len={MAX_INPUT_BYTES}", f"-artifact_prefix={tmp_path}/finding-"]
    new = tmp_path / "new"
    new.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.explore", name, *options, str(new), str(CORPUS / name)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=100, check=False)
    findings = [path.read_bytes() for path in tmp_path.glob("finding-*")]
    assert run.returncode == 0, f"{findings}\n{run.stderr.decode(errors='replace')[-4000:]}"
    assert not findings
