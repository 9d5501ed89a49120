"""Events of a directory, from the kernel and as octets."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.net.inotify import CLOSE_WRITE, IGNORED, MOVED_TO, Inotify, parse_events


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    made = Inotify()
    yield made
    made.close()


def event(mask: int, name: bytes) -> bytes:
    padded = name + b"\0" * (-len(name) % 16)
    return struct.pack("iIII", 1, mask, 0, len(padded)) + padded


def test_events_are_parsed_whole() -> None:
    octets = event(MOVED_TO, b"one") + event(IGNORED, b"") + event(CLOSE_WRITE, b"x" * 255)
    assert parse_events(octets) == [(MOVED_TO, "one"), (IGNORED, ""), (CLOSE_WRITE, "x" * 255)]


def test_names_that_are_no_utf8_come_back_as_they_are() -> None:
    (found,) = parse_events(event(MOVED_TO, b"\xff\n\xfe"))
    assert os.fsencode(found.name) == b"\xff\n\xfe"


def test_rename_and_close_are_reported(inotify: Inotify, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    inotify.watch(str(new), MOVED_TO | CLOSE_WRITE)
    assert inotify.read() == []
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").rename(new / "a")
    (new / "b").write_bytes(b"x")
    assert [(found.mask, found.name) for found in inotify.read()] == [(MOVED_TO, "a"), (CLOSE_WRITE, "b")]


def test_directory_that_goes_ends_its_watch(inotify: Inotify, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    inotify.watch(str(new), MOVED_TO)
    new.rmdir()
    assert inotify.read()[-1].mask & IGNORED


def test_what_is_no_directory_can_not_be_watched(inotify: Inotify, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        inotify.watch(str(tmp_path / "file"), MOVED_TO)
    with pytest.raises(FileNotFoundError):
        inotify.watch(str(tmp_path / "none"), MOVED_TO)
