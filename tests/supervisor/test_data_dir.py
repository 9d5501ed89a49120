"""Lock and layout of the data directory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from engine.core.errors import ConfigError
from engine.supervisor.data_dir import DataDir, write_file


def test_a_second_engine_is_refused_by_the_first_ones_process_id(tmp_path: Path) -> None:
    first, second = DataDir(str(tmp_path / "data")), DataDir(str(tmp_path / "data"))
    asyncio.run(first.open(2))
    with pytest.raises(ConfigError, match=f"another engine uses it .process {os.getpid()}."):
        asyncio.run(second.open(2, wait_s=0.0))
    first.close()
    asyncio.run(second.open(2, wait_s=0.0))
    first.close()
    second.close()


def test_a_new_engine_waits_for_the_lock(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = DataDir(str(tmp_path)), DataDir(str(tmp_path))
        await first.open(2)
        waiting = asyncio.ensure_future(second.open(2))
        await asyncio.sleep(0)
        assert not waiting.done()
        first.close()
        await waiting
        second.close()

    asyncio.run(scenario())


def test_what_it_creates_is_closed_to_others(tmp_path: Path) -> None:
    directory = DataDir(str(tmp_path / "new" / "data"))
    asyncio.run(directory.open(2))
    assert directory.path.stat().st_mode & 0o077 == 0
    assert directory.run_dir.stat().st_mode & 0o077 == 0
    directory.close()


def test_a_path_too_long_for_sockets_is_refused_by_name(tmp_path: Path) -> None:
    directory = DataDir(str(tmp_path / ("x" * 100)))
    with pytest.raises(ConfigError, match=r"at most 107 bytes, .*shard-1\.sock has"):
        asyncio.run(directory.open(2))


def test_a_path_that_is_no_directory_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"/file: File exists$"):
        asyncio.run(DataDir(str(tmp_path / "file")).open(2))
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match=f"^{tmp_path}: {tmp_path}/run: "):
        asyncio.run(DataDir(str(tmp_path)).open(2))


def test_stores_beyond_the_shard_count_are_leftovers(tmp_path: Path) -> None:
    for name in ("shard-0", "shard-2", "shard-10", "shard-1", "drained-4-1", "shard-"):
        (tmp_path / name).mkdir()
    assert DataDir(str(tmp_path)).leftover_stores(2) == [2, 10]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_file(tmp_path / "a.json", b"old")
    write_file(tmp_path / "a.json", b"new")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a.json", b"new")]
