"""Transactions are found without their meta pages."""

from engine.store.pages import PageFile
from engine.store.roots import seek_roots
from engine.store.walk import Walk, named_tables


def test_without_any_meta_page_the_last_transaction_is_among_those_found(fill):
    store = fill()
    store.zero(0, 2)
    file = PageFile(store.data)
    assert file.newest is None
    found = seek_roots(file, bytearray(file.pages), set())
    assert 300 in {rooted.sizes["deliveries"] for rooted in found}
    file.close()


def test_beside_a_readable_one_at_most_one_other_is_taken(fill):
    store = fill()
    file = PageFile(store.data)
    reached = bytearray(file.pages)
    for table in named_tables(file, [file.newest.main.root]).values():
        Walk(file, reached).run(table)
    assert len(seek_roots(file, reached, set())) <= 1
    file.close()
