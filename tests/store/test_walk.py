"""A tree is walked whole, and ends even where it bites its tail."""

from engine.store.environment import Tables
from engine.store.pages import PageFile
from engine.store.walk import Walk, mark_run, named_tables


def test_all_tables_are_named_and_their_entries_counted(fill):
    store = fill()
    file = PageFile(store.data)
    tables = named_tables(file, [file.newest.main.root])
    assert set(tables) == set(Tables._fields)
    walk = Walk(file, bytearray(file.pages)).run(tables["deliveries"])
    assert (walk.entries, walk.damage) == (300, [])
    assert walk.leaves == sorted(walk.leaves)
    file.close()


def test_page_that_two_lead_to_is_damage_not_a_circle(fill):
    store = fill()
    root = store.page_of("bodies", "root")
    at = int.from_bytes(store.data.read_bytes()[root * 4096 + 16 :][:2], "little")
    store.write(root * 4096 + at, root.to_bytes(6, "little"))
    file = PageFile(store.data)
    walk = Walk(file, bytearray(file.pages)).run(named_tables(file, [file.newest.main.root])["bodies"])
    assert any("more than one page leads to it" in what for what in walk.damage)
    file.close()


def test_marks_stay_within_the_file():
    marks = bytearray(4)
    mark_run(marks, 2, 10)
    mark_run(marks, 9, 1)
    assert marks == b"\0\0\1\1"
