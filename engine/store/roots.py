"""Where the tables of a transaction begin whose meta page is damaged.

The page that names the tables is sought in the whole file. Most that are found belong to the past: pages
are never overwritten in place. Of those whose trees are whole, one of the transaction behind the meta page
that is left shares most pages with it; the one before it is known by the free list and left out. Where no
meta page is left, all that are whole count.

Owns: that choice.
Never: writes.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.store import pages
from engine.store.environment import Tables
from engine.store.pages import PageFile, Table
from engine.store.walk import Leaf, Walk, named_tables

MAX_CANDIDATES = 32  # each is walked whole


class Rooted(NamedTuple):
    """The leaves of all tables below one root, and a mark for each page that they took."""

    leaves: dict[str, list[Leaf]]
    sizes: dict[str, int]
    reached: bytearray


def seek_roots(file: PageFile, reached: bytearray, freed_last: set[int]) -> list[Rooted]:
    """Return whole transactions other than the one that `reached` is of.

    Args:
        reached: marks of the pages that the newest readable transaction reaches; none where there is none.
        freed_last: pages that it freed, and so are of the one before.
    """
    found: list[Rooted] = []
    tried = 0
    for number in range(pages.FIRST_TREE_PAGE, file.pages):
        if reached[number] or number in freed_last or file.peek(number)[0] != pages.LEAF:
            continue
        tables = named_tables(file, [number])
        if len(tables) < len(Tables._fields):
            continue
        tried += 1
        if (rooted := _walk_all(file, tables)) is not None:
            found.append(rooted)
        if tried >= MAX_CANDIDATES:
            break
    if any(reached) and found:
        return [max(found, key=lambda rooted: _count_shared(reached, rooted.reached))]
    return found


def _walk_all(file: PageFile, tables: dict[str, Table]) -> Rooted | None:
    """Return the leaves of all tables, None if one of them is not whole."""
    reached = bytearray(file.pages)
    leaves: dict[str, list[Leaf]] = {}
    for name, table in tables.items():
        walk = Walk(file, reached).run(table)
        if walk.damage:
            return None
        leaves[name] = walk.leaves
    return Rooted(leaves, {name: table.entries for name, table in tables.items()}, reached)


def _count_shared(one: bytearray, other: bytearray) -> int:
    return (int.from_bytes(one, "big") & int.from_bytes(other, "big")).bit_count()
