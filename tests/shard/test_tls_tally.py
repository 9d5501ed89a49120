"""The outcomes of TLS on disk, a file a day."""

from __future__ import annotations

from engine.security.tally import NO_POLICY, Tally
from engine.shard.tls_tally import TallyKeeper, collect, days_before, forget

DAY_S = 86400.0


class Clock:
    now = 20_000 * DAY_S

    def __call__(self) -> float:
        return self.now


def keeper(tmp_path, clock, shard=0):
    directory = tmp_path / f"shard-{shard}"
    directory.mkdir(exist_ok=True)
    made = TallyKeeper(directory, clock)
    made.open()
    return made


def successes(tally: Tally, domain: str = "a.example") -> int:
    return tally.of(domain)[NO_POLICY].successes


def test_counts_of_today_go_on_after_a_restart(tmp_path):
    clock = Clock()
    first = keeper(tmp_path, clock)
    first.tally().succeed("a.example", NO_POLICY)
    first.keep()
    second = keeper(tmp_path, clock)
    second.tally().succeed("a.example", NO_POLICY)
    assert successes(second.tally()) == 2


def test_midnight_ends_a_day(tmp_path):
    clock = Clock()
    kept = keeper(tmp_path, clock)
    kept.tally().succeed("a.example", NO_POLICY)
    clock.now += DAY_S
    assert len(kept.tally()) == 0
    assert days_before(tmp_path, 20_001) == [20_000]
    assert successes(collect(tmp_path, 20_000)) == 1


def test_domains_without_room_are_logged_once_a_day(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("engine.security.tally.MAX_DOMAINS", 1)
    clock = Clock()
    kept = keeper(tmp_path, clock)
    for domain in ("a.example", "b.example", "c.example"):
        kept.tally().succeed(domain, NO_POLICY)
        kept.keep()
    assert capfd.readouterr().err.count("more domains than") == 1
    clock.now += DAY_S
    for domain in ("a.example", "b.example"):
        kept.tally().succeed(domain, NO_POLICY)
    kept.keep()
    assert capfd.readouterr().err.count("more domains than") == 1


def test_shards_add_up_and_are_forgotten_together(tmp_path):
    clock = Clock()
    for shard in (0, 1):
        made = keeper(tmp_path, clock, shard)
        made.tally().succeed("a.example", NO_POLICY)
        made.keep()
    assert days_before(tmp_path, 20_000) == []  # today is not over
    assert successes(collect(tmp_path, 20_000)) == 2
    forget(tmp_path, 20_000)
    assert days_before(tmp_path, 20_001) == []


def test_damaged_file_costs_its_own_counts_only(tmp_path):
    clock = Clock()
    made = keeper(tmp_path, clock)
    made.tally().succeed("a.example", NO_POLICY)
    made.keep()
    (tmp_path / "shard-1").mkdir()
    (tmp_path / "shard-1" / "tls-20000.tally").write_bytes(b"rubbish")
    assert successes(collect(tmp_path, 20_000)) == 1


def test_nothing_is_written_where_nothing_changed(tmp_path):
    keeper(tmp_path, Clock()).keep()
    assert not list(tmp_path.glob("shard-0/*"))
