"""Tables of a damaged file: everything whose page is there, nothing that was removed."""

import os
import random

import pytest

from engine.store.image import StoreImage
from engine.store.joined import join_messages


def readable(store) -> tuple[StoreImage, set[bytes]]:
    image = StoreImage(store.data)
    found = {d.key for message in join_messages(image) for d in message.deliveries if message.raw}
    image.close()
    return image, found


def test_healthy_file_has_no_damage_and_every_page_is_reached_or_free(fill):
    store = fill()
    image, found = readable(store)
    assert (image.damage, image.has_past) == ([], False)
    assert found == set(store.deliveries)
    assert image.sizes["deliveries"] == 300
    assert all(a or b for a, b in zip(image._reached[2:], image._free[2:], strict=True))


@pytest.mark.parametrize("table", ["bodies", "deliveries"])
def test_leaves_below_a_damaged_branch_are_found_and_nothing_that_was_removed(fill, table):
    store = fill()
    store.zero(store.page_of(table, "root"))
    image, found = readable(store)
    assert image.damage_count
    assert not image.has_past
    assert found == set(store.deliveries)


def test_table_of_tables_gone_loses_no_message(fill):
    store = fill()
    image = StoreImage(store.data)
    main = image.file.newest.main.root
    image.close()
    store.zero(main)
    image, found = readable(store)
    assert image.damage_count
    assert found == set(store.deliveries)


@pytest.mark.parametrize("slot", [0, 1])
def test_meta_page_gone_loses_no_message(fill, slot):
    store = fill()
    store.zero(slot)
    image, found = readable(store)
    assert f"page {slot}: no meta page" in image.damage
    assert found >= set(store.deliveries)


def test_both_meta_pages_gone_loses_no_message_but_may_bring_back_the_past(fill):
    store = fill()
    store.zero(0, 2)
    image, found = readable(store)
    assert image.has_past
    assert found >= set(store.deliveries)


def test_damaged_leaf_loses_what_was_in_it(fill):
    store = fill()
    store.zero(store.page_of("deliveries"))
    image, found = readable(store)
    assert not image.has_past
    assert found < set(store.deliveries)
    assert len(found) > 200


def test_free_list_gone_is_past_only_where_something_has_to_be_sought(fill):
    store = fill()
    image = StoreImage(store.data)
    free = image.file.newest.free.root
    image.close()
    store.zero(free)
    image, found = readable(store)
    assert image.has_past
    assert found >= set(store.deliveries)


@pytest.mark.parametrize("seed", range(60))
def test_no_damage_makes_it_fail_or_invent(fill, seed):
    """Mail of the past may come back; none comes that never was."""
    chance = random.Random(seed)
    store = fill(removed=0)
    size = store.data.stat().st_size
    for _ in range(chance.choice([1, 5])):
        page = chance.randrange(size // 4096)
        match chance.randrange(3):
            case 0:
                store.zero(page)
            case 1:
                store.write(page * 4096 + chance.randrange(4000), chance.randbytes(96))
            case 2:
                for _ in range(20):
                    store.flip(page, chance.randrange(4096))
    if seed % 4 == 0:
        os.truncate(store.data, chance.randrange(size))
    _, found = readable(store)
    assert found <= set(store.deliveries)


def test_entries_under_a_prefix(fill):
    store = fill()
    image = StoreImage(store.data)
    for key in store.deliveries:
        assert [found for found, _ in image.find("deliveries", key[:12])] == [key]
    assert image.find("deliveries", bytes(12)) == []
    image.close()
