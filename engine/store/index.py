"""The schedule and its heads: what is due is found without visiting queues.

The schedule holds (queue, due, delivery); heads holds exactly one entry (due, queue) per queue: its
earliest. Both change in the transaction of the deliveries. A queue's changes come in the order of their
keys, so the entry behind a removed head is where the cursor stands: one look-up per queue and commit.

Owns: that heads always says what the schedule says.
Never: begins or commits a transaction.
"""

from __future__ import annotations

from typing import Any

from engine.core.envelope import DELIVERY_KEY_BYTES
from engine.store.records import POSITION_BYTES


def change_schedule(schedule: Any, heads: Any, changes: dict[bytes, bool]) -> list[bytes]:
    """Put (True) and take away (False) schedule keys and mend the heads. HOT.

    Args:
        schedule, heads: cursors of one write transaction.

    Returns:
        Keys that were to be taken away and were not there.
    """
    missing: list[bytes] = []
    keys = sorted(changes)
    begin, count = 0, len(keys)
    while begin < count:
        queue = keys[begin][:-POSITION_BYTES]
        end = begin + 1
        while end < count and keys[end][:-POSITION_BYTES] == queue:
            end += 1
        old = schedule.key() if schedule.set_range(queue) else b""
        if not old.startswith(queue):
            old = b""
        new = _change_queue(schedule, old, keys[begin:end], changes, missing)
        if new != old:
            _move_head(heads, queue, old, new)
        begin = end
    return missing


def _change_queue(
    schedule: Any, first: bytes, keys: list[bytes], changes: dict[bytes, bool], missing: list[bytes]
) -> bytes:
    """Change one queue, `keys` in order; return its first key afterwards, b"" if it is empty."""
    for key in keys:
        if changes[key]:
            schedule.put(key, b"")
            if not first or key < first:
                first = key
        elif not schedule.set_key(key):
            missing.append(key)
        else:
            schedule.delete()
            if key == first:
                first = schedule.key()
                if first[:-POSITION_BYTES] != key[:-POSITION_BYTES]:
                    first = b""
    return first


def _move_head(heads: Any, queue: bytes, old: bytes, new: bytes) -> None:
    if old and heads.set_key(old[-POSITION_BYTES:-DELIVERY_KEY_BYTES] + queue):
        heads.delete()
    if new:
        heads.put(new[-POSITION_BYTES:-DELIVERY_KEY_BYTES] + queue, b"")
