"""Doubts are settled by what the records say, in the commit, and nothing accepted is lost by it."""

from __future__ import annotations

from zlib import crc32

import msgspec
import pytest

from engine.message.headers import format_received
from engine.store.batch import Doubt
from engine.store.records import (
    decode_aside,
    head_key,
    parse_schedule_key,
    queue_name,
    schedule_key,
    schedule_key_of,
)
from engine.store.verify import verify_store
from tests.store.conftest import UNIX_START, Harness

FAR = int((UNIX_START + 1e9) * 1000)
X_QUEUE = queue_name("acme", "x.example")


def change(harness: Harness, table: str, old: bytes, new: bytes = b"") -> None:
    """Take a key of a table away, or alter it."""
    with harness.store._environment.lmdb.begin(write=True) as txn:
        handle = getattr(harness.store._tables, table)
        value = txn.get(old, db=handle)
        assert txn.delete(old, db=handle)
        if new:
            txn.put(new, value, db=handle)


def check_all(harness: Harness) -> None:
    """Let the sweep go round once, and commit what it doubts."""
    while not (is_round := harness.store.check(7)):
        if is_round is None:
            harness.commit()
    harness.commit()


def assert_whole(harness: Harness, *deliveries) -> None:
    """Every delivery is due where it should be, and `verify` has nothing to say."""
    found = set()
    for due, queue in harness.heads():
        rows = harness.store.due_keys(queue, b"", 1 << 62, 1000)
        assert rows[0][0] == due
        for due_ms, key in rows:
            assert harness.store.load(key, queue, due_ms) is not None
            found.add(key)
    assert found == {each.key for each in deliveries}
    harness.store.close()
    findings = verify_store(harness.path)
    assert findings.problems == []


@pytest.fixture
def stored(harness, make):
    """Five messages in three queues."""
    deliveries = [make(f"{name}.example", due_at=UNIX_START + n) for n, name in enumerate("xxxyz")]
    harness.put_now(*deliveries[:1])
    for delivery in deliveries[1:]:
        harness.put(delivery)
    harness.commit()
    return deliveries


def test_whole_store_is_left_alone(harness, stored):
    while not harness.store.check(7):
        pass
    assert harness.store._group.batch.is_empty
    assert (harness.mended, harness.damaged) == ([], [])
    assert_whole(harness, *stored)


@pytest.mark.parametrize("which", [0, 1, 4], ids=["first", "second", "only"])
def test_entry_whose_due_time_was_altered_goes_back_to_its_place(harness, stored, which):
    delivery = stored[which]
    entry = schedule_key_of(delivery)
    queue, _, key = parse_schedule_key(entry)
    change(harness, "schedule", entry, schedule_key(queue, FAR, key))
    check_all(harness)
    assert f"delivery {key.hex()} was in the schedule where it should not be" in harness.mended
    assert_whole(harness, *stored)


@pytest.mark.parametrize("which", [0, 1, 4])
@pytest.mark.parametrize("queue", [queue_name("acme", "w.example"), queue_name("zcme", "x.example"), X_QUEUE])
def test_entry_whose_queue_was_altered_goes_back_to_its_place(harness, stored, which, queue):
    _, due, key = parse_schedule_key(entry := schedule_key_of(stored[which]))
    change(harness, "schedule", entry, schedule_key(queue, due, key))
    check_all(harness)
    assert_whole(harness, *stored)


@pytest.mark.parametrize("place", [11, 13], ids=["message id", "index"])
def test_entry_whose_delivery_was_altered_leaves_and_the_delivery_is_scheduled_again(harness, stored, place):
    entry = schedule_key_of(stored[1])
    at = len(entry) - 14 + place
    change(harness, "schedule", entry, entry[:at] + bytes([entry[at] ^ 0x40]) + entry[at + 1 :])
    check_all(harness)
    assert harness.damaged == []
    assert_whole(harness, *stored)


@pytest.mark.parametrize("which", [0, 1, 4])
def test_entry_that_is_gone_is_put_again(harness, stored, which):
    change(harness, "schedule", schedule_key_of(stored[which]))
    check_all(harness)
    assert_whole(harness, *stored)


def test_record_of_format_1_names_no_customer_but_its_body_does(harness, stored):
    delivery = stored[4]
    facts = msgspec.msgpack.encode(("z.example", delivery.recipients, delivery.due_at, 0, "", "", False, 0))
    record = b"\x01" + crc32(facts).to_bytes(4, "big") + facts
    with harness.store._environment.lmdb.begin(write=True) as txn:
        txn.put(delivery.key, record, db=harness.store._tables.deliveries)
    change(harness, "schedule", schedule_key_of(delivery))
    check_all(harness)
    assert f"delivery {delivery.key.hex()} was not in the schedule" in harness.mended
    assert_whole(harness, *stored)


def test_head_that_is_gone_is_put_again(harness, stored):
    change(harness, "heads", head_key(int(UNIX_START * 1000), X_QUEUE))
    assert len(harness.heads()) == 2
    check_all(harness)
    assert harness.mended == ["queue acme/x.example/ had no head"]
    assert_whole(harness, *stored)


@pytest.mark.parametrize(
    "head",
    [head_key(FAR, X_QUEUE), head_key(5, X_QUEUE), head_key(7, queue_name("acme", "q.example"))],
    ids=["too late", "too early", "of another queue"],
)
def test_head_that_was_altered_is_its_queues_first_again(harness, stored, head):
    change(harness, "heads", head_key(int(UNIX_START * 1000), X_QUEUE), head)
    check_all(harness)
    assert_whole(harness, *stored)


def test_record_under_an_altered_key_gets_its_own_back(harness, stored):
    key = stored[2].key
    change(harness, "deliveries", key, key[:-1] + b"\x04")
    check_all(harness)
    assert harness.mended == [f"the record of delivery {key.hex()} stood under {key[:-1].hex()}04"]
    assert_whole(harness, *stored)


def with_stamp(delivery, recipient="user@x.example"):
    stamp = format_received(
        "mta.example", delivery.message_id.hex(), "smtp", "h", "1.2.3.4", recipient, "now"
    )
    delivery.message = stamp + b"Subject: x\r\n\r\n"
    return delivery


def test_record_that_is_gone_is_written_anew_where_the_message_names_its_recipient(harness, make):
    delivery = with_stamp(make())
    harness.put_now(delivery)
    change(harness, "deliveries", delivery.key)
    check_all(harness)
    found = harness.store.load(delivery.key)
    assert (found.recipients, found.due_at) == (["user@x.example"], delivery.due_at)
    assert_whole(harness, delivery)


def test_record_that_is_gone_is_told_and_its_message_set_aside_where_nothing_names_its_recipient(
    harness, make
):
    delivery, well = with_stamp(make(), ""), make()
    harness.put(delivery)
    harness.put_now(well)
    change(harness, "deliveries", delivery.key)
    check_all(harness)
    detail = "delivery: in the schedule, and its record is gone"
    assert harness.damaged == [(delivery.key, detail)]
    ((key, raw),) = harness.store.damaged(10)
    kept = decode_aside(key, raw)
    assert kept[:3] == (detail, harness.unix_now, None)
    assert delivery.message in kept[3]
    assert_whole(harness, well)


def test_body_stays_for_the_deliveries_that_are_left(harness, make):
    first = make("x.example")
    second = make("y.example", sibling_of=first, index=1)
    harness.put_now(first, second)
    change(harness, "deliveries", first.key)
    check_all(harness)
    assert [key for key, _ in harness.damaged] == [first.key]
    assert_whole(harness, second)


def test_doubt_that_a_change_of_the_same_commit_answers_does_nothing(harness, stored):
    leaves, moves = stored[0], stored[1]
    harness.store._doubt([Doubt("entry", schedule_key_of(each)) for each in stored[:2]])
    harness.store._doubt(
        [Doubt("delivery", leaves.key), Doubt("head", head_key(int(UNIX_START * 1000), X_QUEUE))]
    )
    harness.store.remove(leaves)
    harness.store.amend(moves, moves.due_at + 500)
    harness.commit()
    assert harness.mended == []
    assert_whole(harness, *stored[1:])


def test_altered_entry_of_a_delivery_that_leaves_meanwhile_leaves_too(harness, stored):
    queue, _, key = parse_schedule_key(entry := schedule_key_of(stored[1]))
    change(harness, "schedule", entry, schedule_key(queue, FAR, key))
    while not harness.store.check(7):
        pass
    harness.store.remove(stored[1])
    harness.commit()
    assert harness.damaged == []
    assert_whole(harness, stored[0], *stored[2:])


def test_load_has_an_entry_mended_that_came_up_too_early(harness, stored):
    delivery = stored[1]
    queue, due, key = parse_schedule_key(entry := schedule_key_of(delivery))
    change(harness, "schedule", entry, schedule_key(queue, due - 1500, key))
    assert harness.store.load(key, queue, due - 1500) is None
    harness.commit()
    assert harness.mended == [f"delivery {key.hex()} was in the schedule where it should not be"]
    assert_whole(harness, *stored)


def test_what_is_mended_waits_for_room_as_removals_do(harness, stored):
    batch = harness.store._group.batch
    batch.doubt([Doubt("delivery", stored[0].key)])
    relief = batch.relieve()
    assert relief.doubts == {Doubt("delivery", stored[0].key)}
    assert batch.doubts == set()
    assert relief.operations == 1
