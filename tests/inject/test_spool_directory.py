"""The directories of a spool: nothing overwritten, nothing lost, every kind of file that is no message."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.core.errors import ConfigError
from engine.inject import spool_directory
from engine.inject.spool_directory import SpoolDirectory, Unreadable, read_file

MAX = 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def directory(path: Path) -> Iterator[SpoolDirectory]:
    made = SpoolDirectory(path, 0)
    made.open()
    yield made
    made.close()


@pytest.fixture
def put(path: Path, directory: SpoolDirectory) -> Callable[..., Path]:
    def put_it(name: str = "m", octets: bytes = b"x") -> Path:
        (path / "tmp" / name).write_bytes(octets)
        return (path / "tmp" / name).rename(path / "new" / name)

    return put_it


def read(directory: SpoolDirectory, name: str) -> bytes:
    return read_file(directory.open_claimed(name, MAX))


def fault(directory: SpoolDirectory, name: str = "m") -> str:
    assert directory.claim(name)
    with pytest.raises(Unreadable) as raised:
        directory.open_claimed(name, MAX)
    return str(raised.value)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directories_are_made_with_their_modes(path: Path, directory: SpoolDirectory) -> None:
    assert [mode(path / name) for name in ("", "tmp", "new", "failed")] == [0o770] * 4
    assert [mode(path / name) for name in ("claimed", "claimed/0")] == [0o700] * 2


def test_directories_that_are_there_keep_their_modes(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new").chmod(0o733)
    directory = SpoolDirectory(tmp_path, 0)
    directory.open()
    directory.close()
    assert mode(tmp_path / "new") == 0o733


def test_path_that_can_not_be_made_is_an_error_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"file/spool: spool: .*: Not a directory"):
        SpoolDirectory(tmp_path / "file" / "spool", 0).open()


def test_claimed_file_is_read_whole_and_unlinked(
    directory: SpoolDirectory, put: Callable[..., Path], path: Path
) -> None:
    new = put(octets=b"y" * MAX)
    assert directory.claim("m")
    assert not new.exists()
    assert read(directory, "m") == b"y" * MAX
    directory.unlink("m")
    directory.unlink("m")
    assert directory.claimed_files() == []


def test_one_of_two_shards_gets_a_file(
    path: Path, directory: SpoolDirectory, put: Callable[..., Path]
) -> None:
    other = SpoolDirectory(path, 1)
    other.open()
    put()
    assert [other.claim("m"), directory.claim("m")] == [True, False]
    assert (path / "claimed" / "1" / "m").exists()
    other.close()


def test_claim_never_overwrites(directory: SpoolDirectory, put: Callable[..., Path], path: Path) -> None:
    put(octets=b"first")
    directory.claim("m")
    put(octets=b"second")
    with pytest.raises(FileExistsError):
        directory.claim("m")
    assert read(directory, "m") == b"first"
    with pytest.raises(FileExistsError):
        directory.put_back("m")
    assert (path / "new" / "m").read_bytes() == b"second"


def test_file_system_without_exclusive_renames_does_not_overwrite_either(
    directory: SpoolDirectory, put: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Libc:
        @staticmethod
        def renameat2(*_: object) -> int:
            return -1

    monkeypatch.setattr(spool_directory, "_libc", Libc)
    monkeypatch.setattr(spool_directory.ctypes, "get_errno", lambda: 22)
    put(octets=b"first")
    assert directory.claim("m")
    assert not directory.claim("n")
    put(octets=b"second")
    with pytest.raises(FileExistsError):
        directory.claim("m")
    assert read(directory, "m") == b"first"


def test_listing_leaves_out_names_with_a_dot_in_front(
    directory: SpoolDirectory, put: Callable[..., Path]
) -> None:
    put("a")
    put(".rsync.a")
    assert [entry.name for entry in directory.new_files()] == ["a"]


def test_identity_is_of_file_and_content(directory: SpoolDirectory, put: Callable[..., Path]) -> None:
    put()
    directory.claim("m")
    first = directory.open_claimed("m", MAX)
    os.close(first.descriptor)
    directory.put_back("m")
    directory.claim("m")
    again = directory.open_claimed("m", MAX)
    os.close(again.descriptor)
    assert first.identity == again.identity
    put("n")
    directory.claim("n")
    other = directory.open_claimed("n", MAX)
    os.close(other.descriptor)
    assert other.identity != first.identity


def test_empty_file(directory: SpoolDirectory, put: Callable[..., Path]) -> None:
    put(octets=b"")
    assert fault(directory) == "the file is empty"


def test_file_that_is_too_large(directory: SpoolDirectory, put: Callable[..., Path]) -> None:
    put(octets=b"x" * (MAX + 1))
    assert fault(directory) == "larger than 1000 octets"


def test_symbolic_link_is_not_followed(directory: SpoolDirectory, path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (path / "new" / "m").symlink_to(tmp_path / "secret")
    assert fault(directory) == "a symbolic link"
    directory.fail("m", "a symbolic link")
    assert (tmp_path / "secret").read_bytes() == b"x"


def test_directory_is_no_message(directory: SpoolDirectory, path: Path) -> None:
    (path / "new" / "m").mkdir()
    assert fault(directory) == "a directory"
    directory.fail("m", "a directory")
    assert (path / "failed" / "m").is_dir()


def test_fifo_is_no_message_and_nobody_waits_for_it(directory: SpoolDirectory, path: Path) -> None:
    os.mkfifo(path / "new" / "m")
    assert fault(directory) == "not a regular file"


def test_socket_is_no_message(directory: SpoolDirectory, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(path / "new" / "m"))
        assert fault(directory) == "not a regular file"


def test_file_that_is_closed_to_us(open_directory: Path, unprivileged: None) -> None:
    directory = SpoolDirectory(open_directory / "spool", 0)
    directory.open()
    (open_directory / "spool" / "new" / "m").write_bytes(b"x")
    (open_directory / "spool" / "new" / "m").chmod(0)
    assert fault(directory) == "can't be read: permission denied"
    directory.fail("m", "can't be read: permission denied")
    assert (open_directory / "spool" / "failed" / "m").exists()
    directory.close()


def test_directory_that_lets_nothing_out(open_directory: Path, unprivileged: None) -> None:
    directory = SpoolDirectory(open_directory / "spool", 0)
    directory.open()
    new = open_directory / "spool" / "new"
    (new / "m").write_bytes(b"x")
    new.chmod(0o555)
    with pytest.raises(PermissionError):
        directory.claim("m")
    new.chmod(0o770)
    directory.close()


def test_file_that_grows_is_not_taken(
    directory: SpoolDirectory, put: Callable[..., Path], path: Path
) -> None:
    put()
    directory.claim("m")
    file = directory.open_claimed("m", MAX)
    with (path / "claimed" / "0" / "m").open("ab") as writer:
        writer.write(b"more")
    with pytest.raises(BlockingIOError):
        read_file(file)


def test_file_that_shrinks_is_not_taken(
    directory: SpoolDirectory, put: Callable[..., Path], path: Path
) -> None:
    put(octets=b"x" * 10)
    directory.claim("m")
    file = directory.open_claimed("m", MAX)
    os.truncate(path / "claimed" / "0" / "m", 5)
    with pytest.raises(BlockingIOError):
        read_file(file)


def test_failed_file_has_its_reason_beside_it(
    directory: SpoolDirectory, put: Callable[..., Path], path: Path
) -> None:
    put(octets=b"bad")
    directory.claim("m")
    assert directory.fail("m", "no recipients: ü") == "m"
    assert (path / "failed" / "m").read_bytes() == b"bad"
    assert (path / "failed" / "m.reason").read_text() == "no recipients: ü\n"
    assert mode(path / "failed" / "m.reason") == 0o640


def test_failed_files_of_one_name_are_all_kept(
    directory: SpoolDirectory, put: Callable[..., Path], path: Path
) -> None:
    for number in range(3):
        put(octets=b"%d" % number)
        directory.claim("m")
        directory.fail("m", str(number))
    kept = {name: (path / "failed" / name).read_bytes() for name in ("m", "m.2", "m.3")}
    assert kept == {"m": b"0", "m.2": b"1", "m.3": b"2"}
    assert (path / "failed" / "m.3.reason").read_text() == "2\n"


@pytest.mark.parametrize("name", ["x" * 255, "\udcff\udcfe", "a b\nc", "m.reason", "ü" * 127, "-rf", "~"])
def test_names_of_every_kind_can_fail(directory: SpoolDirectory, path: Path, name: str) -> None:
    (path / "new" / name).write_bytes(b"x")
    assert directory.claim(name)
    assert read(directory, name) == b"x"
    target = directory.fail(name, "why")
    assert (path / "failed" / target).read_bytes() == b"x"
    assert (path / "failed" / (target + ".reason")).read_text() == "why\n"


def test_reason_overwrites_no_failed_file(directory: SpoolDirectory, path: Path) -> None:
    for name in ("m.reason", "m"):
        (path / "new" / name).write_bytes(b"x")
        directory.claim(name)
        directory.fail(name, "why")
    assert (path / "failed" / "m.reason").read_bytes() == b"x"
    assert (path / "failed" / "m.2").read_bytes() == b"x"


def test_long_names_that_begin_alike_fail_apart(directory: SpoolDirectory, path: Path) -> None:
    targets = set()
    for last in "ab":
        name = "x" * 254 + last
        (path / "new" / name).write_bytes(b"x")
        directory.claim(name)
        targets.add(directory.fail(name, "why"))
    assert len(targets) == 2


def test_claims_of_shards_that_exist_no_more_have_one_heir(path: Path) -> None:
    for number in range(5):
        shard = SpoolDirectory(path, number)
        shard.open()
        (path / "new" / f"m{number}").write_bytes(b"x")
        shard.claim(f"m{number}")
        shard.close()
    (path / "claimed" / "stranger").mkdir()
    heirs = [SpoolDirectory(path, number) for number in range(2)]
    for heir in heirs:
        heir.open()
    assert heirs[0].left_claims(2) == [(2, ["m2"]), (4, ["m4"])]
    assert heirs[1].left_claims(2) == [(3, ["m3"])]
    heirs[0].inherit(4, "m4")
    assert heirs[0].claimed_files() == ["m0", "m4"]
    for heir in heirs:
        heir.close()


@pytest.mark.parametrize("name", ["new", "claimed/0", "failed"])
def test_spool_that_was_replaced_is_noticed(directory: SpoolDirectory, path: Path, name: str) -> None:
    assert not directory.is_gone
    (path / name).rename(path / "old")
    assert directory.is_gone
    (path / name).mkdir()
    assert directory.is_gone
    directory.open()
    assert not directory.is_gone


def test_file_that_can_not_be_moved_to_failed_leaves_no_reason_there(
    directory: SpoolDirectory, path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            directory.fail("m", "why")
    assert os.listdir(path / "failed") == []


def test_sync_waits_for_the_directory(directory: SpoolDirectory) -> None:
    directory.sync()
