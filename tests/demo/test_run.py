"""The order of a run, without its stage: what a stage that fails makes of the exit status."""

from __future__ import annotations

import contextlib
import signal

import pytest
from rich.console import Console

from engine.demo import run
from engine.demo.stage import StageError


@pytest.fixture(autouse=True)
def _signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "said"), [(StageError("a sink did not start"), "a sink"), (KeyboardInterrupt(), "stopped")]
)
def test_a_run_that_can_not_go_on_ends_with_1_and_says_why(monkeypatch, error, said):
    @contextlib.contextmanager
    def failing(_scenario):
        raise error
        yield

    monkeypatch.setattr(run, "on_stage", failing)
    console = Console(record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        assert run.run_demo(console, 4_000) == 1
        assert said in console.export_text()
