"""LMDB's file as liblmdb writes it is read the same; what is not in it is said."""

import os

import lmdb
import pytest

from engine.store.pages import MAX_RUN_READS, NO_ROOT, PageDamaged, PageFile, parse_leaf, parse_meta


@pytest.fixture
def data(tmp_path):
    with lmdb.open(str(tmp_path), lock=False) as environment, environment.begin(write=True) as txn:
        txn.put(b"a", b"1")
        txn.put(b"b", b"x" * 10_000)
    return tmp_path / "data.mdb"


def test_entries_of_a_leaf_and_a_value_in_overflow_pages(data):
    file = PageFile(data)
    nodes, bad = parse_leaf(file.read_tree_page(file.newest.main.root))
    assert [node.key for node in nodes] == [b"a", b"b"]
    assert (nodes[0].data, nodes[1].size, bad) == (b"1", 10_000, 0)
    first = int.from_bytes(nodes[1].data, "little")
    assert file.read_run(first, 10_000) == b"x" * 10_000
    assert file.check_run(first, 10_000) == ""
    assert file.check_run(first, 100_000) != ""
    assert file.newest.free.root == NO_ROOT
    file.close()


def test_pages_outside_the_file_or_of_another_kind_are_damaged(data):
    file = PageFile(data)
    for number in (0, 1, file.pages, 1 << 60):
        with pytest.raises(PageDamaged, match=f"page {number}"):
            file.read_tree_page(number)
    with pytest.raises(PageDamaged):
        file.read_run(1 << 60, 10)
    file.close()


@pytest.mark.parametrize("number", [1 << 51, 1 << 52, (1 << 64) - 1])
def test_page_number_beyond_what_the_system_can_take_is_not_in_the_file(data, number):
    """One altered bit makes it, and pread would raise OverflowError."""
    file = PageFile(data)
    assert file.check_run(number, 10) == "not in the file"
    assert file.peek(number) == (0, 1)
    with pytest.raises(PageDamaged):
        file.read_run(number, 10)
    file.close()


def test_value_longer_than_its_run_is_damaged_and_not_read(data):
    with data.open("ab") as more:
        more.write(bytes(100 * 4096))
    file = PageFile(data)
    first = int.from_bytes(parse_leaf(file.read_tree_page(file.newest.main.root))[0][1].data, "little")
    with pytest.raises(PageDamaged, match="no overflow page for 200000 octets"):
        file.read_run(first, 200_000)
    file.close()


def test_reading_values_has_an_end(data):
    file = PageFile(data)
    first = int.from_bytes(parse_leaf(file.read_tree_page(file.newest.main.root))[0][1].data, "little")
    for _ in range(MAX_RUN_READS):
        assert len(file.read_run(first, 10_000)) == 10_000
    with pytest.raises(PageDamaged, match="times over"):
        [file.read_run(first, 10_000) for _ in range(file.pages * MAX_RUN_READS)]
    file.close()


def test_page_in_which_the_file_ends_is_damaged(data):
    os.truncate(data, data.stat().st_size - 100)
    file = PageFile(data)
    with pytest.raises(PageDamaged):
        file.read_tree_page(file.pages - 1)
    file.close()


@pytest.mark.parametrize("octets", [b"", b"short", bytes(4096), b"\xff" * 4096])
def test_what_is_no_meta_page_is_none(octets):
    assert parse_meta(octets) is None


def test_nodes_that_reach_over_the_page_are_counted_not_read(data):
    file = PageFile(data)
    octets = bytearray(file.read_tree_page(file.newest.main.root))
    octets[16:18] = (4095).to_bytes(2, "little")
    nodes, bad = parse_leaf(bytes(octets))
    assert ([node.key for node in nodes], bad) == ([b"b"], 1)
    file.close()
