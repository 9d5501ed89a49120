"""The sweep comes upon everything, a few entries at a time, and doubts nothing that is well."""

from __future__ import annotations

import random

import pytest

from engine.core.errors import StoreDamaged
from engine.store.image import StoreImage
from engine.store.pages import HEADER_BYTES, count_nodes
from engine.store.salvage import salvage
from engine.store.verify import verify_store

PAGE_BYTES = 4096
FLIPS_A_SEED = 25


def sweep_round(harness) -> int:
    """Go round once, with the commits that it waits for; return in how many steps."""
    steps = 1
    while not (is_round := harness.store.check(16)) and not harness.unhealthy:
        steps += 1
        if is_round is None:
            commit(harness)
    return steps


def commit(harness) -> None:
    """Commit what is staged, if the store still does."""
    group = harness.store._group
    if not group.batch.is_empty or group._committing is not None:
        harness.loop.run_until(
            lambda: bool(harness.unhealthy) or not (group._has_work() or group._committing),
            lambda: group._committing is not None,
        )


def test_steps_are_bounded_and_come_round(open_harness, fill):
    filled = fill(100, 20)
    harness = open_harness("shard-0")
    heads = len(harness.heads())
    assert sweep_round(harness) == 80 // 16 + 80 // 16 + heads // 16 + 3
    assert harness.store._group.batch.is_empty
    assert set(harness.stored_keys()) == set(filled.deliveries)


def test_nothing_is_doubted_while_everything_changes(harness, make):
    """A slice sees records and indexes of one commit, whatever is staged or under way."""
    chance = random.Random(7)
    standing = []
    for number in range(300):
        standing.append(make(f"d{chance.randrange(9)}.example", due_at=1_700_000_000.0 + number))
        harness.put(standing[-1])
        if len(standing) > 20:
            delivery = standing.pop(chance.randrange(20))
            if chance.random() < 0.5:
                harness.store.remove(delivery)
            else:
                harness.store.amend(delivery, delivery.due_at + chance.randrange(-50, 500))
        harness.store.check(5)
        assert not any(batch.doubts for batch in harness.store._batches)
        if number % 7 == 0:
            harness.loop.turn()


def flip_key(data, table: str, chance: random.Random) -> str:
    """Flip one bit in a key of a leaf, which LMDB reads as if nothing had happened; say which."""
    image = StoreImage(data)
    number = chance.choice(image.leaves[table]).number
    octets = image.file.read_tree_page(number)
    image.close()
    slot = HEADER_BYTES + 2 * chance.randrange(count_nodes(octets))
    node = int.from_bytes(octets[slot : slot + 2], "little")
    key_bytes = int.from_bytes(octets[node + 6 : node + 8], "little")
    at = number * PAGE_BYTES + node + 8 + chance.randrange(key_bytes)
    with data.open("r+b") as file:
        file.seek(at)
        before = file.read(1)[0]
        file.seek(at)
        file.write(bytes([before ^ 1 << chance.randrange(8)]))
    return f"{table}, page {number}, octet {at}"


@pytest.mark.parametrize("table", ["schedule", "heads", "deliveries"])
@pytest.mark.parametrize("seed", range(4))
def test_one_flipped_bit_in_a_key_strands_nothing(fill, harness_type, table, seed):
    """It is mended, or what was there is set aside and told, or the store is salvaged: by itself."""
    store = fill(120, 20)
    whole = store.data.read_bytes()
    chance = random.Random(f"{table}{seed}")
    for case in range(FLIPS_A_SEED):
        store.data.write_bytes(whole)
        what = f"case {case}: " + flip_key(store.data, table, chance)
        harness = harness_type(store.path)
        is_damaged = not mend_all(harness)
        harness.store.close()
        found, told = read_salvaged(store.path)
        if not is_damaged:
            assert verify_store(store.path).problems == [], what
            told |= {key for key, _ in harness.damaged}
        missing = set(store.deliveries) - found - told
        assert {key[:12] for key in missing} <= {key[:12] for key in told}, what


def mend_all(harness) -> bool:
    """Sweep and commit until nothing is left to mend; False where the store gave up on itself."""
    try:
        for _ in range(2):
            sweep_round(harness)
            commit(harness)
    except StoreDamaged:
        return False
    return not harness.unhealthy


def read_salvaged(directory):
    """Return the deliveries that can be read, and those that are told as lost."""
    items = list(salvage(directory))
    found = {key for item in items if item[0] == "message" for key, _ in item[2]}
    return found, {bytes.fromhex(item[1]["delivery"]) for item in items if item[0] == "lost"}


@pytest.mark.parametrize("name", [b"no queue", b"\xff\0x.example\0", b"", b"a\0b\0c\0"])
def test_head_of_what_is_no_queue_leaves(harness, make, name):
    delivery = make()
    harness.put_now(delivery)
    with harness.store._environment.lmdb.begin(write=True) as txn:
        txn.put(bytes(8) + name, b"", db=harness.store._tables.heads)
    assert len(harness.heads()) == 1, "it is left out at once"
    sweep_round(harness)
    commit(harness)
    with harness.store._environment.lmdb.begin() as txn:
        assert txn.stat(db=harness.store._tables.heads)["entries"] == 1
    assert harness.unhealthy == []


def test_entry_that_is_none_is_damage_and_told_to_the_environment(harness, make):
    harness.put_now(make())
    with harness.store._environment.lmdb.begin(write=True) as txn:
        txn.put(b"no entry", b"", db=harness.store._tables.schedule)
    with pytest.raises(StoreDamaged, match="no entry"):
        sweep_round(harness)
    assert [type(error) for error in harness.unhealthy] == [StoreDamaged]


def test_records_out_of_order_are_damage(fill, harness_type):
    """A search that is led astray finds nothing: what is there must not be taken for gone."""
    store = fill(120, 20)
    image = StoreImage(store.data)
    number = image.leaves["deliveries"][0].number
    octets = bytearray(image.file.read_tree_page(number))
    image.close()
    octets[HEADER_BYTES : HEADER_BYTES + 4] = octets[HEADER_BYTES + 2 : HEADER_BYTES + 4] + octets[16:18]
    store.write(number * PAGE_BYTES, bytes(octets))
    harness = harness_type(store.path)
    with pytest.raises(StoreDamaged, match="out of order in deliveries"):
        sweep_round(harness)
    harness.store.close()


def test_index_that_mending_does_not_help_is_damage(fill, harness_type):
    """Two right entries that stand in each other's place: no entry is wrong, and yet no search finds them."""
    store = fill(120, 20)
    image = StoreImage(store.data)
    number = image.leaves["schedule"][0].number
    octets = bytearray(image.file.read_tree_page(number))
    image.close()
    octets[HEADER_BYTES : HEADER_BYTES + 4] = octets[HEADER_BYTES + 2 : HEADER_BYTES + 4] + octets[16:18]
    store.write(number * PAGE_BYTES, bytes(octets))
    harness = harness_type(store.path)
    assert not mend_all(harness)
    assert [type(error) for error in harness.unhealthy] == [StoreDamaged]
    harness.store.close()
