"""Rotated event logs."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from engine.telemetry import eventarchive
from engine.telemetry.eventarchive import EventArchive, compress_file


def rotated_name(second: int, shard: int = 1) -> str:
    return f"events-{shard}-20260131T1200{second:02}.000000Z.jsonl"


def decompress(path: Path) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())


def test_compressed_file_takes_the_plain_ones_place(tmp_path: Path) -> None:
    plain = tmp_path / rotated_name(1)
    plain.write_bytes(b"lines\n" * 100_000)
    plain.chmod(0o640)
    compressed = compress_file(plain)
    assert [path.name for path in tmp_path.iterdir()] == [plain.name + ".zst"]
    assert decompress(compressed) == b"lines\n" * 100_000
    assert compressed.stat().st_mode & 0o777 == 0o640


def test_what_a_crash_left_is_taken_up_at_start(tmp_path: Path) -> None:
    (tmp_path / rotated_name(1)).write_bytes(b"one\n")
    (tmp_path / (rotated_name(1) + ".zst.tmp")).write_bytes(b"half")
    (tmp_path / "events-1.jsonl").write_bytes(b"being written\n")
    (tmp_path / rotated_name(1, shard=11)).write_bytes(b"another shard's\n")
    archive = EventArchive(tmp_path, 1)
    archive.start()
    archive.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        rotated_name(1) + ".zst",
        "events-1.jsonl",
        rotated_name(1, shard=11),
    ]


def test_oldest_files_go_where_a_number_is_set(tmp_path: Path) -> None:
    archive = EventArchive(tmp_path, 1, keep_files=2)
    for second in range(5):
        path = tmp_path / rotated_name(second)
        path.write_bytes(b"x\n")
        archive.add(path)
        archive.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        rotated_name(3) + ".zst",
        rotated_name(4) + ".zst",
    ]


def test_file_that_can_not_be_compressed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> Path:
        raise OSError("disk full")

    path = tmp_path / rotated_name(1)
    path.write_bytes(b"x\n")
    monkeypatch.setattr(eventarchive, "compress_file", fail)
    archive = EventArchive(tmp_path, 1)
    archive.start()
    archive.close()
    assert path.read_bytes() == b"x\n"
