"""The heads always say what the schedule says."""

from __future__ import annotations

import tempfile

import lmdb
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.store.index import change_schedule
from engine.store.records import head_key, parse_schedule_key, queue_name, schedule_key

QUEUES = [queue_name(customer, domain) for customer in ("", "a", "ab") for domain in ("x", "x.y", "")]
ENTRIES = st.builds(
    schedule_key,
    st.sampled_from(QUEUES),
    st.integers(0, 3),
    st.integers(0, 3).map(lambda n: n.to_bytes(14, "big")),
)
BATCHES = st.lists(st.dictionaries(ENTRIES, st.booleans(), max_size=12), max_size=12)


def naive_heads(schedule: set[bytes]) -> list[bytes]:
    earliest: dict[bytes, int] = {}
    for key in schedule:
        queue, due, _ = parse_schedule_key(key)
        earliest[queue] = min(due, earliest.get(queue, due))
    return sorted(head_key(due, queue) for queue, due in earliest.items())


@settings(max_examples=150, deadline=None)
@given(BATCHES)
def test_heads_equal_the_naive_model_after_every_batch(batches):
    with tempfile.TemporaryDirectory() as path, lmdb.open(path, max_dbs=2, sync=False, lock=False) as env:
        tables = env.open_db(b"schedule"), env.open_db(b"heads")
        model: set[bytes] = set()
        for changes in batches:
            absent = {key for key, is_put in changes.items() if not is_put and key not in model}
            with env.begin(write=True) as txn:
                missing = change_schedule(txn.cursor(tables[0]), txn.cursor(tables[1]), changes)
            assert set(missing) == absent
            model |= {key for key, is_put in changes.items() if is_put}
            model -= {key for key, is_put in changes.items() if not is_put}
            with env.begin() as txn:
                schedule, heads = ([key for key, _ in txn.cursor(table)] for table in tables)
            assert schedule == sorted(model)
            assert heads == naive_heads(model)
