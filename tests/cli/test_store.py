"""`mailrail store` on stores that no engine has open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.cli.main import run
from engine.core.envelope import Delivery, Envelope, MessageIds
from engine.store.batch import Batch
from engine.store.commit import Writer
from engine.store.environment import Environment, StoreOptions
from engine.store.owner import OwnerLock
from engine.store.quarantine import list_quarantined, quarantine

OPTIONS = StoreOptions(map_size_bytes=64 << 20, lock_wait_s=0.0)
NOW = 1_700_000_000.0
COUNT = 60


@pytest.fixture
def data_dir(config: str) -> Path:
    """Two shards' stores below the configuration's data_dir."""
    root = Path(config).parent / "data"
    for shard in (0, 1):
        ids = MessageIds(shard, b"inst")
        environment = Environment(root / f"shard-{shard}", OPTIONS)
        environment.open()
        batch = Batch()
        for number in range(COUNT):
            envelope = Envelope("news@acme.example", "acme", "acme", NOW, 9000, "smtp")
            domain = f"d{number % 3}.example"
            message = b"Subject: x\r\n\r\n" + b"x" * 9000
            batch.put([Delivery(ids.make(NOW), 0, envelope, domain, [f"u@{domain}"], NOW)], message)
        with environment.lmdb.begin(write=True) as txn:
            Writer(environment.tables).write(txn, batch, NOW)
        environment.close()
    return root


def ask(config: str, capsys: Any, *words: str) -> tuple[int, Any]:
    status = run(["store", *words, "-c", config, "--json"])
    return status, json.loads(capsys.readouterr().out)


def damage(data_dir: Path, shard: int) -> None:
    """Alter the last message's octets."""
    path = data_dir / f"shard-{shard}" / "data.mdb"
    octets = bytearray(path.read_bytes())
    octets[octets.rindex(b"x" * 4000)] ^= 1
    path.write_bytes(octets)


def test_verify_says_whole_of_all_stores(config, data_dir, capsys):
    status, answer = ask(config, capsys, "verify")
    assert status == 0
    assert [Path(each["store"]).name for each in answer["stores"]] == ["shard-0", "shard-1"]
    assert all(each["is_whole"] and each["entries"]["bodies"] == COUNT for each in answer["stores"])
    assert run(["store", "verify", "-c", config]) == 0
    assert "shard-0: whole" in capsys.readouterr().out


def test_verify_exits_1_on_damage_and_says_where(config, data_dir, capsys):
    damage(data_dir, 1)
    status, answer = ask(config, capsys, "verify", "1")
    assert status == 1
    assert "checksum does not match" in answer["stores"][0]["problems"][0]
    assert ask(config, capsys, "verify", "0")[0] == 0
    assert run(["store", "verify", "-c", config]) == 1
    assert "shard-1: 1 problems" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["verify"], ["compact"], ["salvage", "0"], ["export", "out"]])
def test_store_in_use_is_refused_by_name(config, data_dir, capsys, words, tmp_path):
    lock = OwnerLock(data_dir / "shard-0")
    lock.take(0.0)
    words = [str(tmp_path / word) if word == "out" else word for word in words]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("engine.store.quarantine.OWNER_WAIT_S", 0.0)
        status, answer = ask(config, capsys, *words)
    assert status == 1
    assert f"{data_dir}/shard-0/owner: another process owns this store" in answer["error"]
    lock.release()


@pytest.mark.parametrize("words", [["verify", "7"], ["compact", "7"], ["salvage", "7"], ["salvage", "/no"]])
def test_store_that_there_is_not_is_an_error(config, data_dir, capsys, words):
    status, answer = ask(config, capsys, *words)
    assert status == 1
    assert "there is no store" in answer["error"]


@pytest.mark.parametrize("words", [["verify", "x"], ["frobnicate"], ["export"], ["verify", "--what"]])
def test_wrong_usage_exits_2(config, words):
    assert run(["store", *words, "-c", config]) == 2


def test_salvage_of_a_shard_moves_it_aside_and_fills_a_fresh_one(config, data_dir, capsys):
    damage(data_dir, 0)
    status, answer = ask(config, capsys, "salvage", "0")
    assert status == 1, "one is lost"
    assert (answer["deliveries"], len(answer["lost"])) == (COUNT - 1, 1)
    assert answer["lost"][0]["recipients"][0].startswith("u@d")
    (place,) = list_quarantined(data_dir)
    assert str(place.path) == answer["from"]
    assert place.report is not None
    assert place.report["lost"] == 1
    assert ask(config, capsys, "verify")[0] == 0
    status, answer = ask(config, capsys, "salvage", str(place.path))
    assert (answer["deliveries"], answer["known"]) == (0, COUNT - 1)


def test_salvage_into_a_fresh_directory_and_another_shard(config, data_dir, capsys, tmp_path):
    status, answer = ask(config, capsys, "salvage", "0", "--to", str(tmp_path / "new"))
    assert (status, answer["deliveries"], answer["lost"]) == (0, COUNT, [])
    status, answer = ask(config, capsys, "salvage", str(tmp_path / "new"))
    assert status == 1
    assert "--into SHARD or --to DIR" in answer["error"]
    status, answer = ask(config, capsys, "salvage", str(tmp_path / "new"), "--into", "1")
    assert (status, answer["deliveries"]) == (0, COUNT)
    assert run(["store", "salvage", str(tmp_path / "new"), "--into", "1", "-c", config]) == 0
    assert f"{COUNT} were there already" in capsys.readouterr().out


def test_copy_elsewhere_leaves_the_salvage_to_the_shard(config, data_dir, capsys, tmp_path):
    place = quarantine(data_dir / "shard-0", "why", NOW)
    assert ask(config, capsys, "salvage", str(place), "--to", str(tmp_path / "look"))[0] == 0
    assert [each.report for each in list_quarantined(data_dir)] == [None]
    assert ask(config, capsys, "salvage", str(place))[0] == 0
    (found,) = list_quarantined(data_dir)
    assert found.report is not None
    assert found.report["deliveries"] == COUNT


def test_compact_reports_octets_before_and_after(config, data_dir, capsys):
    status, answer = ask(config, capsys, "compact", "0")
    assert status == 0
    (row,) = answer["stores"]
    assert 0 < row["after_bytes"] <= row["before_bytes"]
    assert run(["store", "compact", "-c", config]) == 0
    assert "octets before" in capsys.readouterr().out


def test_export_writes_files_and_counts_them(config, data_dir, capsys, tmp_path):
    status, answer = ask(config, capsys, "export", str(tmp_path / "out"), "0", "--domain", "D1.example")
    assert (status, answer["stores"][0]["messages"]) == (0, COUNT // 3)
    assert len(list((tmp_path / "out").iterdir())) == COUNT // 3
    damage(data_dir, 0)
    words = ["store", "export", str(tmp_path / "eml"), "0", "--format", "eml", "-c", config]
    assert run(words) == 1
    assert "1 can't be read" in capsys.readouterr().out
