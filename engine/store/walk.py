"""One tree of a data.mdb, walked from its root to its leaves as far as it can be read.

Owns: which pages were reached, so that a tree that bites its own tail ends.
Never: fails for damage, which is noted.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.store import pages
from engine.store.environment import Tables
from engine.store.pages import PageDamaged, PageFile, Table

MAX_DEPTH = 32  # LMDB's own bound on the height of a tree (CURSOR_STACK)
INTEGER_KEY_BYTES = 8  # of the free list, whose keys are ordered as numbers
TABLE_BYTES = 48


class Leaf(NamedTuple):
    """A leaf page by its first key."""

    first: bytes
    number: int


class Walk:
    """What walking one tree found."""

    def __init__(self, file: PageFile, reached: bytearray) -> None:
        """Args: reached: a mark for each page of the file; pages that are reached are marked."""
        self._file = file
        self._reached = reached
        self.leaves: list[Leaf] = []
        self.entries = 0
        self.damage: list[str] = []

    def run(self, table: Table) -> Walk:
        """Walk the tree of `table`."""
        if table.root != pages.NO_ROOT:
            self._descend(table.root, 0)
        if self.entries != table.entries and not self.damage:
            self.damage.append(f"{self.entries} entries where {table.entries} should be")
        return self

    def _descend(self, number: int, depth: int) -> None:
        try:
            octets = self._file.read_tree_page(number)
            if self._reached[number] or depth > MAX_DEPTH:
                raise PageDamaged(number, "more than one page leads to it")
            self._reached[number] = 1
            if pages.is_leaf(octets):
                self._take_leaf(number, octets)
                return
            children = pages.parse_branch(octets, number)
        except PageDamaged as error:
            self.damage.append(str(error))
            return
        for child in children:
            self._descend(child, depth + 1)

    def _take_leaf(self, number: int, octets: bytes) -> None:
        nodes, bad = pages.parse_leaf(octets)
        self.entries += len(nodes)
        if bad:
            self.damage.append(f"page {number}: {bad} entries can't be read")
        if not nodes:
            return
        keys = [node.key for node in nodes]
        if len(keys[0]) != INTEGER_KEY_BYTES and keys != sorted(keys):
            self.damage.append(f"page {number}: entries out of order")
        self.leaves.append(Leaf(min(keys), number))
        for node in nodes:
            if node.flags & pages.BIG_VALUE:
                self._take_run(pages.page_number(node.data), node.size)

    def _take_run(self, first: int, size: int) -> None:
        if why := self._file.check_run(first, size):
            self.damage.append(f"page {first}: {why}")
        mark_run(self._reached, first, self._file.run_pages(size))


def mark_run(marks: bytearray, first: int, count: int) -> None:
    """Mark pages, those of them that there are."""
    end = min(first + count, len(marks))
    if first < end:
        marks[first:end] = b"\x01" * (end - first)


def named_tables(file: PageFile, numbers: list[int]) -> dict[str, Table]:
    """Return our tables by name from leaves of the table of tables."""
    found: dict[str, Table] = {}
    for number in numbers:
        try:
            nodes, _ = pages.parse_leaf(file.read_tree_page(number))
        except PageDamaged:
            continue
        for node in nodes:
            name = node.key.decode("ascii", "replace")
            if name in Tables._fields and node.flags & pages.SUB_TABLE and len(node.data) == TABLE_BYTES:
                found[name] = pages.parse_table(node.data)
    return found
