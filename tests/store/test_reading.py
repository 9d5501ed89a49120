"""What is due, what waits, one delivery."""

from __future__ import annotations

from engine.store.records import head_key, position, queue_name, schedule_key


def test_due_queues_come_earliest_first_and_go_on_behind_the_last(harness, make):
    for number in range(10):
        harness.put(make(f"d{number}.example", due_at=1000.0 + number))
    harness.put(make("late.example", due_at=5000.0))
    harness.commit()
    found, after = [], b""
    while part := harness.store.due_queues(after, 2_000_000, 3):
        assert len(part) <= 3
        found += part
        after = head_key(*part[-1])
    assert found == [(1_000_000 + 1000 * n, queue_name("acme", f"d{n}.example")) for n in range(10)]


def test_due_keys_come_in_order_of_due_time_and_go_on_behind_the_last(harness, make):
    deliveries = [make(due_at=1000.0 + number % 4) for number in range(10)]
    for delivery in deliveries:
        harness.put(delivery)
    harness.put(make("other.example", due_at=1.0))
    harness.commit()
    queue = queue_name("acme", "x.example")
    found, after = [], b""
    while part := harness.store.due_keys(queue, after, 1_002_999, 2):
        found += part
        after = position(*part[-1])
    expected = sorted((int(d.due_at * 1000), d.key) for d in deliveries if d.due_at < 1003)
    assert found == expected


def test_staged_deliveries_do_not_count_against_the_limit(harness, make):
    deliveries = [make() for _ in range(6)]
    for delivery in deliveries:
        harness.put(delivery)
    harness.commit()
    for delivery in deliveries[:4]:
        harness.store.remove(delivery)
    queue = queue_name("acme", "x.example")
    assert [key for _, key in harness.store.due_keys(queue, b"", 1 << 62, 2)] == [
        d.key for d in deliveries[4:]
    ]
    assert harness.stored_keys() == [d.key for d in deliveries[4:]]


def test_schedule_slice_visits_everything_once(harness, make):
    deliveries = [make(f"d{number % 3}.example", due_at=1000.0 + number) for number in range(10)]
    for delivery in deliveries:
        harness.put(delivery)
    harness.commit()
    found, after = [], b""
    while part := harness.store.schedule_slice(after, 4):
        found += part
        after = schedule_key(*part[-1])
    assert sorted(key for _, _, key in found) == sorted(delivery.key for delivery in deliveries)
    assert found == sorted(found)


def test_queues_are_listed_by_name_without_visiting_their_deliveries(harness, make):
    for number in range(9):
        harness.put(make(f"d{number % 3}.example", due_at=1000.0 + number))
    harness.put(make("d1.example", customer="zeta", due_at=7.0))
    harness.commit()
    names = [queue_name("acme", f"d{n}.example") for n in range(3)] + [queue_name("zeta", "d1.example")]
    first = harness.store.queues(2)
    assert first == [(names[0], 1_000_000), (names[1], 1_001_000)]
    assert harness.store.queues(9, first[-1][0]) == [(names[2], 1_002_000), (names[3], 7000)]
    assert harness.store.queues(9, names[3]) == []
    assert harness.store.depth(names[0], 100) == 3
    assert harness.store.depth(names[0], 2) == 2
    assert harness.store.depth(queue_name("acme", "none"), 2) == 0


def test_queue_whose_name_continues_another_is_apart(harness, make):
    inner = make("x", customer="a")
    harness.put(inner)
    harness.put(make("x", customer="ab"))
    harness.put_now(make("xy", customer="a"))
    assert harness.store.depth(queue_name("a", "x"), 10) == 1
    assert [key for _, key in harness.store.due_keys(queue_name("a", "x"), b"", 1 << 62, 10)] == [inner.key]


def test_peek_reads_no_message(harness, make):
    delivery = make(message=b"x" * 100_000)
    harness.put_now(delivery)
    found = harness.store.peek(delivery.key)
    assert (found.recipients, found.envelope, found.message) == (delivery.recipients, delivery.envelope, b"")
    assert harness.store.peek(b"unknown-key-14") is None


def test_deliveries_of_a_message_come_by_index(harness, make):
    first = make("x.example")
    third = make("z.example", sibling_of=first, index=2)
    second = make("y.example", sibling_of=first, index=1)
    harness.put(make())
    harness.put(first, third, second)
    harness.put_now(make())
    found = harness.store.deliveries_of(first.message_id)
    assert [(d.domain, d.index, d.message) for d in found] == [
        ("x.example", 0, b""),
        ("y.example", 1, b""),
        ("z.example", 2, b""),
    ]
    assert harness.store.deliveries_of(bytes(12)) == []


def test_peek_at_a_damaged_record_is_none_and_changes_nothing(harness, make):
    delivery = make()
    harness.put_now(delivery)
    store = harness.store
    with store._environment.lmdb.begin(write=True) as txn:
        txn.put(delivery.key, b"?", db=store._tables.deliveries)
    assert store.peek(delivery.key) is None
    assert store.deliveries_of(delivery.message_id) == []
    assert store.damaged(1) == []


def test_load_sees_staged_amendments_of_messages_not_yet_stored(open_harness, make):
    harness = open_harness(durability="async")
    delivery = make()
    harness.put(delivery)
    delivery.attempts = 4
    harness.store.amend(delivery, delivery.due_at + 60)
    found = harness.store.load(delivery.key)
    assert (found.attempts, found.due_at, found.message) == (4, delivery.due_at, delivery.message)
    assert harness.store.is_stored(delivery.key)
    assert harness.store.count() == 0


def test_load_finds_the_message_in_the_batch_that_is_being_committed(harness, make):
    delivery = make()
    harness.put(delivery)
    harness.loop.turn()
    harness.store.amend(delivery, delivery.due_at + 60)
    assert harness.store.load(delivery.key).message == delivery.message
