"""long windows: what was spent is on disk, and is found by whoever owns the address next."""

from __future__ import annotations

from pathlib import Path

from engine.delivery.paths import Spent, encode_spent
from engine.queue.adaptive import AdaptiveState
from engine.queue.limits import RateState, WindowState
from engine.shard.long_windows import NAME, LongWindows, is_over

UNIX_NOW = 1_700_000_000.0
HOUR_S = 3600.0


def make_row(address: str = "192.0.2.1", at: float = UNIX_NOW, count: int = 1) -> Spent:
    states = [RateState(at, [WindowState(HOUR_S, [at], [count])])]
    return Spent((address,), "gmail", at, states)


def open_windows(data_dir: Path, shard: int) -> LongWindows:
    (data_dir / f"shard-{shard}").mkdir(exist_ok=True)
    windows = LongWindows(data_dir, shard)
    windows.open()
    return windows


def test_what_one_shard_has_written_is_read_by_all(tmp_path: Path) -> None:
    open_windows(tmp_path, 0).write([make_row()], UNIX_NOW)
    assert open_windows(tmp_path, 1).read() == [make_row()]
    (tmp_path / "shard-0").rename(tmp_path / "drained-0-17")
    assert open_windows(tmp_path, 1).read() == [make_row()]


def test_what_was_anothers_stays_until_its_time_is_over(tmp_path: Path) -> None:
    """Its new owner may not have read it yet, or die before it has written its own."""
    open_windows(tmp_path, 0).write([make_row()], UNIX_NOW)
    again = open_windows(tmp_path, 0)
    other = make_row("192.0.2.2", UNIX_NOW + 10.0)
    again.write([other], UNIX_NOW + 10.0)
    assert sorted(again.read(), key=lambda row: row.addresses) == [make_row(), other]
    again.write([other], UNIX_NOW + 1.02 * HOUR_S)
    assert again.read() == [other]


def test_what_was_spent_since_takes_the_place_of_what_was_known(tmp_path: Path) -> None:
    windows = open_windows(tmp_path, 0)
    windows.write([make_row()], UNIX_NOW)
    later = make_row(at=UNIX_NOW + 5.0, count=2)
    windows.write([later], UNIX_NOW + 5.0)
    assert windows.read() == [later]


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    windows = open_windows(tmp_path, 0)
    row = make_row()
    windows.write([row], UNIX_NOW)
    (tmp_path / "shard-0" / NAME).unlink()
    windows.write([Spent(row.addresses, row.destination, UNIX_NOW + 2.0, row.states)], UNIX_NOW + 2.0)
    assert windows.read() == []


def test_a_file_that_is_no_such_file_is_begun_anew(tmp_path: Path) -> None:
    for octets in (b"\xc1", encode_spent([["a"]]), b""):
        (tmp_path / "shard-0").mkdir(exist_ok=True)
        (tmp_path / "shard-0" / NAME).write_bytes(octets)
        assert open_windows(tmp_path, 0).read() == []


def test_a_row_is_over_when_nothing_in_it_holds_anybody_back() -> None:
    assert not is_over(make_row(), UNIX_NOW + HOUR_S)
    assert is_over(make_row(), UNIX_NOW + 1.02 * HOUR_S)
    assert not is_over(Spent(("192.0.2.1",), "gmail", UNIX_NOW, [RateState(UNIX_NOW + 9.0, [])]), UNIX_NOW)


def test_a_row_with_something_learned_of_the_peer_is_kept_for_a_day() -> None:
    row = Spent(("192.0.2.1",), "gmail", UNIX_NOW, [], AdaptiveState(UNIX_NOW, None, 3))
    assert not is_over(row, UNIX_NOW + 86_000.0)
    assert is_over(row, UNIX_NOW + 87_000.0)


def test_rows_of_a_version_without_adaptive_limits_are_read(tmp_path: Path) -> None:
    (tmp_path / "shard-0").mkdir()
    row = make_row()
    old = [[row.addresses, row.destination, row.exported_at, row.states]]
    (tmp_path / "shard-0" / NAME).write_bytes(encode_spent(old))
    assert open_windows(tmp_path, 0).read() == [row]
