"""Structured log lines on standard error, one event a line.

`log = Log("delivery")`, then `log.info("vmta held", vmta=name, reason=why)`. The words of an event are
constant, what varies goes into fields, so that lines can be counted and searched.

    2026-01-31T12:00:00.123Z info shard-0 delivery: vmta held vmta=acme-1 reason="source is not on this host"

Owns: level, form and flood control of one process's log. The same event more than BURST times in WINDOW_S is
left out and counted; the next line of that event says how many are missing.
Never: blocks on purpose, raises: a log that can't be written must not stop mail.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
_LEVEL_NAMES = {number: name for name, number in LEVELS.items()}

BURST = 50  # of one event, enough to see which vmtas or files it is about
WINDOW_S = 10.0
MAX_FIELD = 1000  # characters; a peer's reply may be 200 kB long
MAX_EVENTS = 1000  # events watched for floods; there are fewer in the source

_JSON = msgspec.json.Encoder(enc_hook=str)


class _Output:
    """Where lines of this process go, and in which form."""

    def __init__(self) -> None:
        self.level = INFO
        self.is_json = False
        self.process = ""  # shard-0, supervisor
        self.clock: Callable[[], float] = time.time
        self.suppressed = 0
        self._write: Callable[[bytes], Any] = _write_stderr
        self._seen: dict[tuple[str, str], list[float]] = {}  # event to [window's start, lines in it]

    def configure(self, write: Callable[[bytes], Any] | None, clock: Callable[[], float] | None) -> None:
        self._write = write or _write_stderr
        self.clock = clock or time.time
        self._seen.clear()

    def emit(self, level: int, name: str, event: str, fields: dict[str, Any]) -> None:
        now = self.clock()
        missing = self._missing(name, event, now) if level > DEBUG else 0
        if missing < 0:
            return
        if missing:
            fields = {**fields, "suppressed": missing}
        make = _format_json if self.is_json else _format_plain
        self._write(make(now, level, self.process, name, event, fields))

    def _missing(self, name: str, event: str, now: float) -> int:
        """Return how many lines of this event were left out before this one; -1 to leave it out too."""
        seen = self._seen.get((name, event))
        if seen is None:
            if len(self._seen) >= MAX_EVENTS:
                self._seen.clear()
            self._seen[name, event] = [now, 1]
            return 0
        missing = 0
        if not 0 <= now - seen[0] < WINDOW_S:
            missing = max(0, int(seen[1]) - BURST)
            seen[0], seen[1] = now, 0
        seen[1] += 1
        if seen[1] > BURST:
            self.suppressed += 1
            return -1
        return missing


def _write_stderr(line: bytes) -> None:
    """Write one line, whole, unbuffered; a closed or full log loses it."""
    try:
        os.write(sys.stderr.fileno(), line)
    except (OSError, ValueError, AttributeError):
        _OUTPUT.suppressed += 1


_OUTPUT = _Output()


class Log:
    """The log of one part of the engine."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, /, **fields: Any) -> None:
        """What a developer asks for; costs one comparison when off."""
        if _OUTPUT.level <= DEBUG:
            _OUTPUT.emit(DEBUG, self._name, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """What an operator wants to find later."""
        if _OUTPUT.level <= INFO:
            _OUTPUT.emit(INFO, self._name, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """What works, but not as it was meant to."""
        if _OUTPUT.level <= WARNING:
            _OUTPUT.emit(WARNING, self._name, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """What an operator must mend."""
        _OUTPUT.emit(ERROR, self._name, event, fields)


def configure_log(
    level: str,
    *,
    process: str = "",
    is_json: bool = False,
    write: Callable[[bytes], Any] | None = None,
    clock: Callable[[], float] | None = None,
) -> None:
    """Set level (debug, info, warning, error), form and process name for every Log of this process.

    Args:
        process: what stands in each line for this process, like "shard-0".
        write: takes whole lines; standard error if None.
        clock: Unix UTC seconds; the system's if None.

    Raises:
        ValueError: no such level.
    """
    if level not in LEVELS:
        raise ValueError(f"expected one of {', '.join(LEVELS)}, got {level!r}")
    _OUTPUT.level = LEVELS[level]
    _OUTPUT.is_json = is_json
    _OUTPUT.process = process
    _OUTPUT.configure(write, clock)


def suppressed_lines() -> int:
    """Return how many lines were not written since this process started."""
    return _OUTPUT.suppressed


class StandardLogging(logging.Handler):
    """Carries what libraries tell the standard library's logging (asyncio, aiohttp) into our lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; its traceback becomes a field."""
        fields: dict[str, Any] = {"message": record.getMessage()}
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        level = min(ERROR, max(DEBUG, record.levelno // 10 * 10))
        if _OUTPUT.level <= level:
            _OUTPUT.emit(level, record.name, "library message", fields)


def capture_standard_logging() -> None:
    """Send the root logger's records, from warning up, through this log."""
    root = logging.getLogger()
    root.handlers[:] = [StandardLogging()]
    root.setLevel(logging.WARNING)


def _format_plain(
    now: float, level: int, process: str, name: str, event: str, fields: dict[str, Any]
) -> bytes:
    head = f"{_format_time(now)} {_LEVEL_NAMES[level]} {process + ' ' if process else ''}{name}: {event}"
    tail = "".join([f" {key}={_format_value(value)}" for key, value in fields.items()])
    return f"{head}{tail}\n".encode("utf-8", "replace")


def _format_json(
    now: float, level: int, process: str, name: str, event: str, fields: dict[str, Any]
) -> bytes:
    line = {"time": _format_time(now), "level": _LEVEL_NAMES[level], "process": process, "part": name}
    try:
        return _JSON.encode({**line, "event": event, **{k: _bounded(v) for k, v in fields.items()}}) + b"\n"
    except UnicodeEncodeError:
        plain = {k: str(v).encode("utf-8", "replace").decode() for k, v in fields.items()}
        return _JSON.encode({**line, "event": event, **plain}) + b"\n"


def _format_time(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _format_value(value: Any) -> str:
    """Format one field so that it stays on its line and in its field (quoted as in JSON)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.3f}"
    text = str(_bounded(value if isinstance(value, str | int | bytes) else str(value)))
    if text and text.isprintable() and not (set(text) & _QUOTED):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


_QUOTED = frozenset(' "=\\')


def _bounded(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.hex() if len(value) in (12, 14) else value.decode("utf-8", "replace")
    if isinstance(value, str) and len(value) > MAX_FIELD:
        return value[:MAX_FIELD] + "..."
    return value
