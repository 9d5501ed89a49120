"""Log lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.telemetry import log as log_module
from engine.telemetry.log import (
    BURST,
    WINDOW_S,
    Log,
    capture_standard_logging,
    configure_log,
    suppressed_lines,
)

log = Log("delivery")


class Sink:
    """Collects lines, and is their clock."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.now = 0.0

    def configure(self, level: str = "info", **options: bool) -> None:
        configure_log(level, process="shard-0", write=self.lines.append, clock=lambda: self.now, **options)


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    made.configure()
    yield made
    configure_log("info")


def test_line_says_when_who_and_what(sink: Sink) -> None:
    log.info("vmta held", vmta="acme-1", reason="no such address", attempts=3, seconds=0.25, known=True)
    assert sink.lines == [
        b"1970-01-01T00:00:00.000Z info shard-0 delivery: vmta held vmta=acme-1 "
        b'reason="no such address" attempts=3 seconds=0.25 known=true\n'
    ]


def test_json_holds_the_same(sink: Sink) -> None:
    sink.configure(is_json=True)
    log.warning("vmta held", vmta="acme-1", attempts=3, why=ValueError("x"))
    assert json.loads(sink.lines[0]) == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "warning",
        "process": "shard-0",
        "part": "delivery",
        "event": "vmta held",
        "vmta": "acme-1",
        "attempts": 3,
        "why": "x",
    }


@pytest.mark.parametrize(("level", "written"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_lines_below_the_level_are_not_written(sink: Sink, level: str, written: int) -> None:
    sink.configure(level)
    for tell in (log.debug, log.info, log.warning, log.error):
        tell(f"told by {tell.__name__}")
    assert len(sink.lines) == written


def test_unknown_level_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="debug, info, warning, error"):
        configure_log("loud")


def test_flood_is_cut_and_counted(sink: Sink) -> None:
    before = suppressed_lines()
    for _ in range(BURST + 7):
        log.info("session failed")
    log.info("another event")
    assert len(sink.lines) == BURST + 1
    assert suppressed_lines() - before == 7
    sink.now = WINDOW_S
    log.info("session failed")
    assert sink.lines[-1].endswith(b"session failed suppressed=7\n")
    log.info("session failed")
    assert sink.lines[-1].endswith(b"session failed\n")


def test_events_watched_are_bounded(sink: Sink) -> None:
    for n in range(3 * log_module.MAX_EVENTS):
        log.info(f"event {n}")
    assert len(log_module._OUTPUT._seen) <= log_module.MAX_EVENTS


any_text = st.text(st.characters(codec=None), max_size=30)


@given(any_text, st.booleans())
def test_no_value_breaks_its_line(value: str, is_json: bool) -> None:
    sink = Sink()
    sink.configure(is_json=is_json)
    log.info("said", reply=value, after="end")
    configure_log("info")
    assert len(sink.lines) == 1
    assert sink.lines[0].count(b"\n") == 1
    assert b"\x1b" not in sink.lines[0]
    if is_json:
        assert json.loads(sink.lines[0])["after"] == "end"
    else:
        assert sink.lines[0].decode().split()[-1] == "after=end"


def test_long_value_is_cut(sink: Sink) -> None:
    log.info("said", reply="x" * 100_000)
    assert len(sink.lines[0]) < 1200


def test_libraries_messages_come_in_our_form(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    capture_standard_logging()
    try:
        raise KeyError("lost")
    except KeyError:
        logging.getLogger("asyncio").exception("Task %s failed", "x")
    assert b'error shard-0 asyncio: library message message="Task x failed" traceback=' in sink.lines[0]
    assert sink.lines[0].count(b"\n") == 1


def test_log_that_can_not_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_log("info")
    monkeypatch.setattr("sys.stderr", None)
    before = suppressed_lines()
    log.info("told to nobody")
    assert suppressed_lines() == before + 1
