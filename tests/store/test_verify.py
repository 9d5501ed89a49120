"""Verification: whole is whole, and each kind of damage is named."""

import pytest

from engine.store.environment import Environment, StoreOptions
from engine.store.records import encode_delivery, head_key, queue_name, schedule_key, seal
from engine.store.verify import verify_store

OPTIONS = StoreOptions(map_size_bytes=64 << 20, lock_wait_s=0.0)


def change(store, table: str, key: bytes, value: bytes | None) -> None:
    environment = Environment(store.path, OPTIONS)
    environment.open()
    with environment.lmdb.begin(write=True) as txn:
        handle = getattr(environment.tables, table)
        if value is None:
            assert txn.delete(key, db=handle)
        else:
            txn.put(key, value, db=handle)
    environment.close()


def some(store):
    return next(iter(store.deliveries.values()))


def problems(store) -> list[str]:
    found = verify_store(store.path)
    assert found.is_whole == (not found.problems)
    assert found.problem_count >= len(found.problems)
    return found.problems


def test_whole_store(fill):
    found = verify_store(fill().path)
    assert found.is_whole, found.problems
    expected = {"bodies": 300, "deliveries": 300, "schedule": 300, "heads": 20, "claims": 8, "seen": 100}
    assert {name: found.entries[name] for name in expected} == expected


def test_progress_is_told(fill):
    store = fill(3000, 0)
    ticks: list[tuple[int, int]] = []
    verify_store(store.path, lambda done, of: ticks.append((done, of)))
    assert ticks == sorted(ticks)
    assert all(done > 0 for done, _ in ticks)


def test_body_without_delivery(fill):
    store = fill()
    key = some(store).key
    change(store, "deliveries", key, None)
    assert problems(store) == [
        f"body {key[:12].hex()} has no delivery",
        f"schedule entry of {key.hex()}, which is not stored",
    ]


def test_delivery_without_body(fill):
    store = fill()
    key = some(store).key
    change(store, "bodies", key[:12], None)
    assert problems(store) == [f"delivery {key.hex()}: it has no body"]


def test_delivery_that_is_never_due(fill):
    store = fill()
    delivery = some(store)
    entry = schedule_key(queue_name("acme", delivery.domain), int(delivery.due_at * 1000), delivery.key)
    change(store, "schedule", entry, None)
    assert f"delivery {delivery.key.hex()} is not in the schedule: it is never due" in problems(store)


def test_delivery_elsewhere_in_the_schedule(fill):
    store = fill()
    delivery = some(store)
    change(store, "schedule", schedule_key(queue_name("acme", delivery.domain), 1 << 50, delivery.key), b"")
    assert problems(store) == [
        f"delivery {delivery.key.hex()} is in the schedule where it should not be",
    ]


def test_heads_that_do_not_say_what_the_schedule_says(fill):
    store = fill()
    delivery = some(store)
    queue = queue_name("acme", delivery.domain)
    change(store, "heads", head_key(int(delivery.due_at * 1000), queue), None)
    change(store, "heads", head_key(5, queue_name("acme", "z.example")), b"")
    assert problems(store) == [
        "head acme/z.example is not the first of its queue",
        f"queue acme/{delivery.domain} has no head: it is never due",
    ]


def test_other_format(fill):
    store = fill()
    change(store, "meta", b"format", b"7")
    assert problems(store) == ["format 7, not 2"]


@pytest.mark.parametrize(
    ("table", "kind"),
    [("bodies", "root"), ("bodies", "leaf"), ("bodies", "big"), ("deliveries", "leaf"), ("heads", "root")],
)
def test_zeroed_page(fill, table, kind):
    store = fill()
    page = store.page_of(table, kind)
    store.zero(page)
    assert any(f"page {page}" in problem for problem in problems(store))


def test_flipped_octet_of_a_message(fill):
    store = fill()
    store.flip(store.page_of("bodies", "big"), 3000)
    (problem,) = problems(store)
    assert "body: checksum does not match" in problem


@pytest.mark.parametrize("table", ["claims", "seen", "replies", "damaged"])
def test_damaged_record_of_what_is_remembered(fill, table):
    store = fill()
    key = b"k" * 14
    change(store, table, key, seal(b"another key", bytes(17)))
    assert len(problems(store)) == 1
    assert f"{table}, {key.hex()}: " in problems(store)[0]


def test_record_under_anothers_key(fill):
    store = fill(3, 0)
    delivery = some(store)
    change(store, "deliveries", delivery.key, None)
    change(store, "deliveries", delivery.key[:-1] + b"\x02", encode_delivery(delivery))
    assert f"delivery {delivery.key.hex()} stands under another key" in problems(store)
