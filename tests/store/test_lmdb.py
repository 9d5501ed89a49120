"""The store of a shard, whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from engine.core.envelope import Delivery
from engine.core.errors import StoreError, StoreFull, StoreUnhealthy
from engine.store.records import DamagedRecord, Duplicate, decode_aside, queue_name
from engine.store.remembered import claim_key, encode_remembered, reply_key
from tests.lacking import need_root

X_QUEUE = queue_name("acme", "x.example")


def due_keys(harness, queue=X_QUEUE, now_at=2_000_000_000.0):
    return [key for _, key in harness.store.due_keys(queue, b"", int(now_at * 1000), 100)]


def test_put_is_told_after_the_commit_and_found_again(harness, make):
    delivery = make(message=b"Subject: a\r\n\r\n" + b"x" * 10_000)
    harness.put(delivery)
    assert harness.told == []
    assert harness.store.count() == 0
    harness.run_until(lambda: bool(harness.told))
    assert harness.told == [None]
    found = harness.store.load(delivery.key)
    assert found is not None
    assert msgspec.to_builtins(found) == msgspec.to_builtins(delivery)


def test_what_was_put_is_there_after_a_restart(harness, open_harness, make):
    deliveries = [make(f"d{n % 3}.example") for n in range(20)]
    for delivery in deliveries:
        harness.put(delivery)
    harness.commit()
    harness.store.close()
    again = open_harness()
    assert sorted(again.stored_keys()) == sorted(delivery.key for delivery in deliveries)
    assert len(again.heads()) == 3
    assert again.store.load(deliveries[7].key).recipients == deliveries[7].recipients


def test_puts_of_one_turn_share_a_commit(harness, make):
    for _ in range(50):
        harness.put(make())
    harness.run_until(lambda: len(harness.told) == 50)
    assert harness.store.stats.commits == 1
    assert len(harness.commits_s) == 1


def test_amended_delivery_moves_and_keeps_its_state(harness, make):
    delivery = make(due_at=1_700_000_000.0)
    harness.put_now(delivery)
    delivery.attempts, delivery.last_reply = 1, "451 4.7.1 later"
    harness.store.amend(delivery, 1_700_000_300.0)
    assert delivery.due_at == 1_700_000_300.0
    assert due_keys(harness) == [], "neither the old nor the new place is shown before the commit"
    loaded = harness.store.load(delivery.key)
    assert (loaded.attempts, loaded.due_at) == (1, 1_700_000_300.0)
    harness.commit()
    assert due_keys(harness, now_at=1_700_000_299.0) == []
    assert due_keys(harness, now_at=1_700_000_300.0) == [delivery.key]
    assert harness.store.load(delivery.key).last_reply == "451 4.7.1 later"
    assert harness.heads() == [(1_700_000_300_000, X_QUEUE)]


def test_removed_delivery_is_gone_at_once_for_readers_and_after_commit_for_good(harness, make):
    delivery = make()
    harness.put_now(delivery)
    harness.store.remove(delivery)
    assert harness.store.load(delivery.key) is None
    assert due_keys(harness) == []
    assert not harness.store.is_stored(delivery.key)
    harness.commit()
    assert harness.store.count() == 0
    assert harness.heads() == []
    assert harness.store.room.map_used_bytes == 4096, "only the format is left"


def test_message_leaves_with_its_last_delivery(harness, make):
    first = make("x.example")
    second = make("y.example", sibling_of=first, index=1)
    third = make("z.example", sibling_of=first, index=2)
    harness.put_now(first, second, third)
    harness.store.remove(second)
    harness.commit()
    assert harness.store.load(first.key).message == first.message
    harness.store.remove(first)
    harness.commit()
    assert harness.store.load(third.key).message == first.message
    harness.store.remove(third)
    harness.commit()
    assert harness.store.room.map_used_bytes == 4096


def test_all_deliveries_of_a_message_removed_in_one_commit(harness, make):
    first = make("x.example")
    second = make("y.example", sibling_of=first, index=1)
    harness.put_now(first, second)
    harness.store.remove(second)
    harness.store.remove(first)
    harness.commit()
    assert harness.store.room.map_used_bytes == 4096


def test_removal_by_a_wrong_due_time_still_finds_its_place(harness, make):
    delivery = make(due_at=1_700_000_000.0)
    harness.put_now(delivery)
    delivery.due_at = 1_700_009_999.0
    harness.store.remove(delivery)
    harness.commit()
    assert harness.heads() == []
    assert harness.stored_keys() == []


def test_schedule_entry_without_a_delivery_is_taken_away_by_load(harness, make):
    delivery = make()
    harness.put_now(delivery)
    store = harness.store
    with store._environment.lmdb.begin(write=True) as txn:
        txn.delete(delivery.key, db=store._tables.deliveries)
    due, key = store.due_keys(X_QUEUE, b"", 1 << 62, 1)[0]
    assert store.load(key, X_QUEUE, due) is None
    harness.commit()
    assert harness.heads() == []


def test_load_of_an_unknown_key_is_none(harness):
    assert harness.store.load(b"unknown-key-14") is None
    assert harness.damaged == []


@pytest.mark.parametrize("table", ["bodies", "deliveries"])
def test_damaged_record_is_set_aside_and_told(harness, make, table):
    harm, well = make(), make()
    harness.put(harm)
    harness.put_now(well)
    flip_last_octet(harness.store, table, harm.message_id if table == "bodies" else harm.key)
    due = int(harm.due_at * 1000)
    assert harness.store.load(harm.key, X_QUEUE, due) is None
    assert harness.damaged == [
        (harm.key, f"{'body' if table == 'bodies' else 'delivery'}: checksum does not match")
    ]
    harness.commit()
    assert due_keys(harness) == [well.key]
    key, kept = harness.store.damaged(10)[0]
    detail, at, record, body = decode_aside(key, kept)
    assert key == harm.key
    assert "checksum" in detail
    assert at == harness.unix_now
    assert record is not None
    assert harm.message[:10] in body
    assert harness.store.load(well.key) is not None
    assert harness.store.load(harm.key) is None
    assert len(harness.damaged) == 1, "told once"


def flip_last_octet(store, table, key):
    with store._environment.lmdb.begin(write=True) as txn:
        handle = getattr(store._tables, table)
        raw = bytearray(txn.get(key, db=handle))
        raw[-1] ^= 1
        txn.put(key, bytes(raw), db=handle)


def write_raw(store, table, key, raw):
    with store._environment.lmdb.begin(write=True) as txn:
        txn.put(key, raw, db=getattr(store._tables, table))


def test_what_format_1_remembered_is_still_known(harness):
    """Claims, ids and replies of format 1 are bare: no version, no checksum."""
    store, expiry = harness.store, int(harness.unix_now + 100).to_bytes(5, "big")
    write_raw(store, "claims", claim_key("one/a"), b"m" * 12)
    write_raw(store, "seen", b"k" * 14, expiry)
    write_raw(store, "replies", reply_key("acme", "id-1"), expiry + b"m" * 12)
    assert store.claim_of("one/a") == b"m" * 12
    assert store.remembered(b"k" * 14)
    assert store.idempotent("acme", "id-1") == b"m" * 12
    harness.unix_now += 100
    assert not store.remembered(b"k" * 14)
    assert store.idempotent("acme", "id-1") is None


def test_damaged_reply_is_an_error_not_another_answer(harness, make):
    """Its message was accepted: taken again it would be sent twice, and another id would be a lie."""
    harness.put_now(make(), idempotency="id-1", reply=b"m" * 12)
    flip_last_octet(harness.store, "replies", reply_key("acme", "id-1"))
    with pytest.raises(DamagedRecord, match="remembered: checksum"):
        harness.store.idempotent("acme", "id-1")
    key = reply_key("acme", "id-1")
    assert harness.damaged == [(key, "remembered: checksum does not match")]


def move_record(store, table, key, other):
    """Put a record under another key, as one flipped bit of the key would."""
    with store._environment.lmdb.begin(write=True) as txn:
        handle = getattr(store._tables, table)
        raw = txn.get(key, db=handle)
        txn.delete(key, db=handle)
        txn.put(other, raw, db=handle)


def test_claim_and_id_under_another_key_are_nobodys(harness, make):
    """Else a spool file would be unlinked that nobody took, and another's copy refused as known."""
    store = harness.store
    harness.put(make(), claim="one/a", idempotency="id-2", reply=b"m" * 12)
    harness.commit()
    seen = encode_remembered(b"k" * 14, harness.unix_now + 100)
    write_raw(store, "seen", b"k" * 14, seen)
    move_record(store, "claims", claim_key("one/a"), claim_key("one/c"))
    move_record(store, "seen", b"k" * 14, b"k" * 13 + b"i")
    move_record(store, "replies", reply_key("acme", "id-2"), reply_key("acme", "id-3"))
    assert store.claim_of("one/c") is None
    assert not store.remembered(b"k" * 13 + b"i")
    with pytest.raises(DamagedRecord):
        store.idempotent("acme", "id-3")


@pytest.mark.parametrize("table", ["bodies", "deliveries"])
def test_record_under_the_key_of_another_message_sends_nothing_to_its_recipients(harness, make, table):
    one, other = make("x.example", message=b"for x"), make("y.example", message=b"for y")
    harness.put(one)
    harness.put_now(other)
    keys = [each.message_id if table == "bodies" else each.key for each in (one, other)]
    move_record(harness.store, table, *keys)
    assert harness.store.load(other.key) is None
    assert harness.damaged == [
        (other.key, f"{'body' if table == 'bodies' else 'delivery'}: checksum does not match")
    ]


def test_missing_body_is_damage_not_a_crash(harness, make):
    delivery = make()
    harness.put_now(delivery)
    store = harness.store
    with store._environment.lmdb.begin(write=True) as txn:
        txn.delete(delivery.message_id, db=store._tables.bodies)
    assert store.load(delivery.key) is None
    assert harness.damaged == [(delivery.key, "body: 0 octets")]


def test_claim_is_stored_with_its_message_until_it_is_forgotten(harness, open_harness, make):
    delivery = make()
    harness.put(delivery, claim="claimed/0/a.eml")
    assert harness.store.claim_of("claimed/0/a.eml") is None
    harness.commit()
    assert harness.store.claim_of("claimed/0/a.eml") == delivery.message_id
    harness.store.remove(delivery)
    harness.commit()
    harness.store.close()
    again = open_harness()
    assert again.store.claim_of("claimed/0/a.eml") == delivery.message_id
    again.store.forget_claim("claimed/0/a.eml")
    again.commit()
    assert again.store.claim_of("claimed/0/a.eml") is None


def test_idempotent_reply_is_known_for_24_hours(harness, make):
    harness.put(make(), idempotency="job-1", reply=b"250 ok")
    assert harness.store.idempotent("acme", "job-1") == b""
    harness.commit()
    assert harness.store.idempotent("acme", "job-1") == b"250 ok"
    assert harness.store.idempotent("other", "job-1") is None
    assert harness.store.idempotent("acme", "j" * 2000) is None
    harness.unix_now += 24 * 3600 + 1
    assert harness.store.idempotent("acme", "job-1") is None


def test_forwarded_message_is_refused_while_stored_and_24_hours_after(harness, make):
    delivery = make()
    harness.put_now(delivery, is_forwarded=True)
    assert harness.store.load(delivery.key).is_remembered
    harness.put(delivery, is_forwarded=True)
    harness.run_until(lambda: len(harness.told) == 2)
    assert isinstance(harness.told[1], Duplicate)
    harness.store.remove(delivery)
    assert harness.store.remembered(delivery.key)
    harness.commit()
    assert harness.store.remembered(delivery.key)
    harness.put(delivery, is_forwarded=True)
    harness.run_until(lambda: len(harness.told) == 3)
    assert isinstance(harness.told[2], Duplicate)
    harness.unix_now += 24 * 3600 + 1
    assert not harness.store.remembered(delivery.key)


def test_delivery_that_was_handed_on_may_come_back(harness, make):
    delivery = make()
    harness.put_now(delivery, is_forwarded=True)
    delivery.is_remembered = False
    harness.store.remove(delivery)
    harness.commit()
    assert not harness.store.remembered(delivery.key)
    harness.put_now(delivery, is_forwarded=True)
    assert harness.told == [None, None]
    assert harness.stored_keys() == [delivery.key]


def test_second_delivery_of_a_handed_over_message_is_taken(harness, make):
    first = make("x.example")
    second = make("y.example", sibling_of=first, index=1)
    harness.put_now(first, is_forwarded=True)
    harness.put_now(first, second, is_forwarded=True)
    assert harness.told == [None, None]
    assert sorted(harness.stored_keys()) == [first.key, second.key]


def test_copy_of_a_message_just_being_stored_is_told_to_come_again(harness, make):
    delivery = make()
    harness.put(delivery, is_forwarded=True)
    with pytest.raises(StoreError, match="just being stored"):
        harness.put(delivery, is_forwarded=True)


def test_queue_name_too_long_is_refused_and_nothing_staged(harness, make):
    with pytest.raises(StoreError, match="customer and domain"):
        harness.put(make("x" * 500))
    harness.put_now(make())
    assert harness.told == [None]


def test_full_map_refuses_puts_while_removals_go_on(open_harness, make):
    harness = open_harness(map_size_bytes=4 << 20, map_watermark=2.0)
    stored: list[Delivery] = []
    while not any(harness.told[-1:]):
        delivery = make(message=b"x" * 100_000)
        harness.put_now(delivery)
        if harness.told[-1] is None:
            stored.append(delivery)
    assert isinstance(harness.told[-1], StoreFull)
    assert harness.store.failure is None
    with pytest.raises(StoreFull):
        harness.put(make())
    stored[0].attempts = 1
    harness.store.amend(stored[0], stored[0].due_at + 5)
    for delivery in stored[1:]:
        harness.store.remove(delivery)
    harness.commit()
    assert harness.stored_keys() == [stored[0].key]
    assert harness.store.is_full, "for a second, so that not every injector tries"
    harness.loop.now += 1.0
    assert not harness.store.is_full
    harness.put_now(make())
    harness.loop.now += 1.0
    harness.put_now(make(message=b"x" * 100_000))
    assert harness.told[-1] is None, "at the latest the second finds the pages that the removals have freed"


def test_puts_and_removals_of_one_batch_part_when_the_map_is_full(open_harness, make):
    harness = open_harness(map_size_bytes=4 << 20, map_watermark=2.0)
    old = [make(message=b"x" * 100_000) for _ in range(10)]
    for delivery in old:
        harness.put(delivery)
    harness.commit()
    for delivery in old:
        harness.store.remove(delivery)
    for _ in range(50):
        harness.put(make(message=b"y" * 100_000))
    harness.run_until(lambda: len(harness.told) == 60)
    assert all(isinstance(error, StoreFull) for error in harness.told[10:])
    harness.commit()
    assert harness.store.count() == 0


def test_async_keeps_what_found_no_room_until_there_is(open_harness, make):
    harness = open_harness(map_size_bytes=4 << 20, map_watermark=2.0, durability="async")
    old = [make(message=b"x" * 100_000) for _ in range(20)]
    for delivery in old:
        harness.put(delivery)
    harness.commit()
    new = [make(message=b"y" * 100_000) for _ in range(30)]
    for delivery in new:
        harness.put(delivery)
    harness.run_until(lambda: bool(harness.store.full_reason))
    assert harness.told == [None] * 50
    assert harness.store.load(new[3].key).message == new[3].message
    for delivery in [*old, *new[:5]]:
        harness.store.remove(delivery)
    harness.run_until(lambda: harness.store.count() == 25)
    assert sorted(harness.stored_keys()) == [delivery.key for delivery in new[5:]]
    harness.loop.now += 1.0
    assert not harness.store.is_full


def test_watermarks_refuse_new_mail_with_a_reason(open_harness, make):
    harness = open_harness(map_watermark=0.0)
    with pytest.raises(StoreFull, match="of the map are used"):
        harness.put(make())
    other = open_harness("other", min_free_bytes=1 << 60)
    with pytest.raises(StoreFull, match="free on the disk"):
        other.put(make())


def test_room_is_measured_again_while_nothing_is_committed(open_harness, make, monkeypatch):
    harness = open_harness(min_free_bytes=1 << 60)
    assert harness.store.is_full
    monkeypatch.setattr(harness.store._environment, "why_full", lambda room: "")
    harness.loop.now += 1.0
    assert not harness.store.is_full
    harness.put(make())


def test_disk_that_takes_no_more_refuses_puts_and_stays_healthy(tmp_path):
    need_root("mount a tmpfs")
    script = Path(__file__).with_name("disk_full.py")
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, str(script), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["StoreFull", "healthy", "removed"]


def test_async_is_told_at_once_and_durable_later(open_harness, make):
    harness = open_harness(durability="async")
    harness.put(make())
    assert harness.told == [], "never within put"
    harness.loop.turn()
    assert harness.told == [None]
    assert harness.store.count() == 0
    began = harness.loop.now
    harness.run_until(lambda: harness.store.count() == 1)
    assert harness.loop.now - began == pytest.approx(0.2)


def test_async_mail_delivered_before_its_commit_never_touches_the_disk(open_harness, make):
    harness = open_harness(durability="async")
    deliveries = [make() for _ in range(30)]
    for delivery in deliveries:
        harness.put(delivery)
        harness.store.remove(delivery)
    harness.commit()
    assert harness.store.stats.operations == 0
    assert harness.stored_keys() == []


def test_close_commits_what_is_staged(harness, open_harness, make):
    delivery = make()
    harness.put(delivery)
    harness.store.close()
    assert harness.told == [None]
    again = open_harness()
    assert again.stored_keys() == [delivery.key]


def test_copy_of_the_file_taken_at_any_time_holds_what_was_told(harness, open_harness, make, tmp_path):
    told: list[bytes] = []
    for number in range(40):
        delivery = make(f"d{number % 5}.example")
        harness.store.put([delivery], delivery.message, lambda error, key=delivery.key: told.append(key))
        if number % 7 == 0:
            harness.run_until(lambda: len(told) > 0)
            copy = tmp_path / f"copy{number}"
            copy.mkdir()
            expected = set(told)
            shutil.copy(harness.path / "data.mdb", copy / "data.mdb")
            crashed = open_harness(f"copy{number}")
            assert expected <= set(crashed.stored_keys())
            assert len(crashed.heads()) == len({key for _, key in crashed.heads()})
            crashed.store.close()


def test_killed_process_has_stored_everything_it_told(open_harness, tmp_path):
    script = Path(__file__).with_name("put_forever.py")
    process = subprocess.Popen(
        [sys.executable, script, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(200)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.stdout.read().split("\n")[:-1]
    process.wait()
    process.stdout.close()
    harness = open_harness()
    stored = {key.hex() for key in harness.stored_keys()}
    removed = {line[1:] for line in told if line.startswith("-")}
    put = {line[1:] for line in told if line.startswith("+") and len(line) == 29}
    assert len(put) > 50
    assert put - removed <= stored
    for key in stored:
        assert harness.store.load(bytes.fromhex(key)) is not None
    assert harness.damaged == []


def test_calls_on_a_closed_store_are_refused(harness, make):
    harness.store.close()
    with pytest.raises(StoreUnhealthy, match="closed"):
        harness.store.count()


def test_stuck_disk_bounds_what_waits(harness, make, monkeypatch):
    monkeypatch.setattr("engine.store.lmdb.MAX_STAGED_BYTES", 25_000)
    for _ in range(3):
        harness.put(make(message=b"x" * 10_000))
    with pytest.raises(StoreFull, match="wait for a commit"):
        harness.put(make())


def test_claims_are_listed_by_prefix(harness, make):
    for name in ("one/a", "one/\udcff", "two/a", "on"):
        harness.put(make(), claim=name)
    assert harness.store.list_claims("one/", 10) == []
    harness.commit()
    assert harness.store.list_claims("one/", 10) == ["one/a", "one/\udcff"]
    assert harness.store.list_claims("one/", 1) == ["one/a"]
    assert harness.store.list_claims("three/", 1) == []


def test_what_another_store_remembers_is_taken_where_nothing_is_here(harness, make):
    delivery = make()
    harness.put_now(delivery, claim="mine", idempotency="id-1", reply=b"mine")
    store = harness.store
    store.restore("claim", b"mine", b"x" * 12)
    store.restore("claim", b"theirs", b"y" * 12)
    store.restore("seen", b"k" * 14, encode_remembered(b"k" * 14, harness.unix_now + 100))
    key = reply_key("acme", "id-1")
    store.restore("reply", key, encode_remembered(key, harness.unix_now + 100, b"theirs"))
    key = reply_key("acme", "id-2")
    store.restore("reply", key, encode_remembered(key, harness.unix_now + 100, b"theirs"))
    harness.commit()
    assert (store.claim_of("mine"), store.claim_of("theirs")) == (delivery.message_id, b"y" * 12)
    assert store.remembered(b"k" * 14)
    assert (store.idempotent("acme", "id-1"), store.idempotent("acme", "id-2")) == (b"mine", b"theirs")


@pytest.mark.parametrize("table", ["heads", "schedule"])
def test_what_names_no_queue_in_an_index_is_left_out_and_leaves(harness, make, table):
    delivery = make()
    harness.put_now(delivery)
    handle = getattr(harness.store._environment.tables, table)
    with harness.store._environment.lmdb.begin(write=True) as txn:
        txn.put(b"\x00" * 8 + b"\xff\xfe" + b"\x00" * 22, b"", db=handle)
    for _ in range(2):
        assert harness.heads() == [(int(delivery.due_at * 1000), X_QUEUE)]
        assert harness.stored_keys() == [delivery.key]
        assert [queue for queue, _ in harness.store.queues(10)] == [X_QUEUE]
    harness.commit()
    assert len(harness.mended) == 1
    with harness.store._environment.lmdb.begin() as txn:
        assert txn.stat(db=handle)["entries"] == 1
    assert harness.unhealthy == []
