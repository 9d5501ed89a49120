"""The event log's file: synced, mended, rotated."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.errors import StoreFull, StoreUnhealthy
from engine.telemetry.eventlog import EventLog
from engine.telemetry.events import Event, format_events


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def make_event(number: int) -> Event:
    return Event("delivered", 1_000_000.0, f"{number:024x}", "acme", "acme", "a@b.example", 1000.0, 1)


def add(log: EventLog, *numbers: int) -> None:
    for number in numbers:
        log.add(make_event(number))


def numbers_in(path: Path) -> list[int]:
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return [int(msgspec.json.decode(line, type=Event).id, 16) for line in data.splitlines()]


def open_log(directory: Path, **options: Any) -> EventLog:
    log = EventLog(directory, 3, **{"clock": Clock(), **options})
    log.open()
    return log


def test_lines_are_on_disk_when_write_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path / "events")
    synced: list[int] = []
    monkeypatch.setattr("os.fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))
    add(log, 1, 2)
    chunk = log.take()
    assert chunk is not None
    log.write(chunk)
    assert synced == [len(chunk)]
    assert numbers_in(log.path) == [1, 2]
    log.close()


def test_take_gives_each_event_once_and_none_when_there_is_none(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    assert log.take() is None
    add(log, 1)
    assert log.take() == format_events([make_event(1)])
    assert log.take() is None
    log.close()


def test_file_is_not_for_everybody(tmp_path: Path) -> None:
    log = open_log(tmp_path / "events")
    assert log.path.name == "events-3.jsonl"
    assert log.path.stat().st_mode & 0o777 & 0o027 == 0
    assert log.path.parent.stat().st_mode & 0o007 == 0
    log.close()


@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreUnhealthy)]
)
def test_what_could_not_be_written_comes_first_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    log = open_log(tmp_path)
    real = os.write

    def half(fd: int, data: memoryview) -> int:
        if len(data) < 100:
            raise OSError(code, os.strerror(code))
        return real(fd, data[:-90])

    add(log, 1)
    log.flush()
    add(log, 2)
    with monkeypatch.context() as patched:
        patched.setattr("os.write", half)
        with pytest.raises(error, match=r"events-3\.jsonl"):
            log.write(log.take())
    assert numbers_in(log.path) == [1]
    add(log, 3)
    log.flush()
    assert numbers_in(log.path) == [1, 2, 3]
    log.close()


def test_failed_sync_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path)
    add(log, 1)
    with monkeypatch.context() as patched:
        patched.setattr("os.fdatasync", fail)
        patched.setattr("os.ftruncate", fail)
        with pytest.raises(StoreUnhealthy):
            log.flush()
    log.flush()
    assert set(numbers_in(log.path)) == {1}
    log.close()


def fail(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    torn=st.integers(0, 200),
    garbage=st.sampled_from([b"", b"\0" * 4096, b"\0\0\n\0", b'{"event":', b"}\n" * 0, b"\n\n"]),
    count=st.integers(0, 3),
)
def test_torn_end_is_cut_at_start(tmp_path: Path, torn: int, garbage: bytes, count: int) -> None:
    path = tmp_path / "events-3.jsonl"
    whole = format_events([make_event(n) for n in range(count)])
    path.write_bytes(whole + format_events([make_event(9)])[: torn % 150] + garbage)
    log = open_log(tmp_path)
    add(log, 77)
    log.flush()
    log.close()
    assert numbers_in(path) in ([*range(count), 77], [*range(count), 9, 77])


def test_torn_end_longer_than_one_look_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "events-3.jsonl"
    path.write_bytes(format_events([make_event(1)]) + b"\0" * (3 << 20))
    log = open_log(tmp_path)
    assert path.read_bytes() == format_events([make_event(1)])
    log.close()


def test_full_file_is_rotated_and_compressed(tmp_path: Path) -> None:
    clock = Clock()
    log = open_log(tmp_path, max_bytes=3 * len(format_events([make_event(0)])), clock=clock)
    for number in range(9):
        clock.now += 1
        add(log, number)
        log.flush()
    log.close()
    rotated = sorted(tmp_path.glob("events-3-*.jsonl.zst"))
    assert [number for path in rotated for number in numbers_in(path)] == list(range(9))
    assert len(rotated) == 3
    assert rotated[0].name == "events-3-19700112T134643.000000Z.jsonl.zst"
    assert not list(tmp_path.glob("*.tmp"))


def test_old_file_is_rotated_even_after_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    log = open_log(tmp_path, max_age_s=60, clock=clock)
    add(log, 1)
    log.flush()
    log.close()
    clock.now += 60
    log = open_log(tmp_path, max_age_s=60, clock=clock)
    add(log, 2)
    log.flush()
    log.close()
    (rotated,) = tmp_path.glob("events-3-*.zst")
    assert numbers_in(rotated) == [1, 2]


def test_file_whose_rotation_fails_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path, max_bytes=1)
    with monkeypatch.context() as patched:
        patched.setattr("os.rename", fail)
        add(log, 1)
        log.flush()
        add(log, 2)
        log.flush()
    assert numbers_in(log.path) == [1, 2]
    log.close()


def test_directory_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreUnhealthy, match="taken/events"):
        open_log(tmp_path / "taken" / "events")
