from __future__ import annotations

from pathlib import Path

from engine.demo.logfile import LogFile


def test_only_finished_lines_are_read_and_each_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile(path)
    assert list(log.read(int)) == []
    path.write_bytes(b"1\n2\n3")
    assert list(log.read(int)) == [1, 2]
    assert list(log.read(int)) == []
    path.write_bytes(b"1\n2\n34\n5\n")
    assert list(log.read(int)) == [34, 5]
