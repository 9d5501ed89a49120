"""The tables of one data.mdb as far as they can be read, whatever has become of it.

The trees of the newest transaction are walked first. Where a page of them is damaged, leaves below it are
still in the file: what is neither reached nor free belongs to them, and a leaf's records tell of which
table it is. Where a meta page is damaged, the transaction that it told of is sought (`roots`). Where
nothing of that can be found, or what is free can't be told, every leaf in the file counts, those of the
past too: then mail that has left may come back, and `has_past` says so.

Owns: which leaves make a table, and what is damaged.
Never: writes; fails for damage (that is `damage`).
Fails: OSError where the file can't be opened.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path

from engine.store import pages
from engine.store.environment import Tables
from engine.store.pages import Meta, Node, PageDamaged, PageFile, Table
from engine.store.roots import seek_roots
from engine.store.shapes import guess_table
from engine.store.walk import Leaf, Walk, mark_run, named_tables

MAX_DAMAGE = 1000  # lines kept; all are counted
BACK = 4  # leaves looked at for one key where leaves overlap
LOOKED_AT = 8  # entries of a leaf that say of which table it is


class StoreImage:
    """A data.mdb; open from the start, `close` it."""

    def __init__(self, path: Path) -> None:
        self.file = PageFile(path)
        self.damage: list[str] = []
        self.damage_count = 0
        self.has_past = False
        self.sizes: dict[str, int] = {}  # entries by table as the file promises
        self.leaves: dict[str, list[Leaf]] = {name: [] for name in Tables._fields}
        self._reached = bytearray(self.file.pages)
        self._free = bytearray(self.file.pages)
        self._freed_last: set[int] = set()
        self._find_tables()
        for found in self.leaves.values():
            found.sort()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def note(self, what: str) -> None:
        """Count damage."""
        self.damage_count += 1
        if len(self.damage) < MAX_DAMAGE:
            self.damage.append(what)

    # -- reading ----------------------------------------------------------------------------------

    def entries(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values in the order of the keys; a key may come more than once (`has_past`)."""
        waiting: list[Node] = []
        for first, number in self.leaves[table]:
            cut = bisect_left(waiting, first, key=_key)
            yield from self._values(waiting[:cut])
            del waiting[:cut]
            waiting = sorted(waiting + self._nodes(number))
        yield from self._values(waiting)

    def find(self, table: str, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """Return the entries whose keys begin with `prefix`, of which there are few."""
        leaves = self.leaves[table]
        at = bisect_right(leaves, prefix, key=lambda leaf: leaf.first)
        end = bisect_right(leaves, prefix + b"\xff" * 8, key=lambda leaf: leaf.first)
        found: list[Node] = []
        for _, number in leaves[max(0, at - (BACK if self.has_past else 1)) : end]:
            found += [node for node in self._nodes(number) if node.key.startswith(prefix)]
        return list(self._values(found))

    def _nodes(self, number: int) -> list[Node]:
        try:
            return pages.parse_leaf(self.file.read_tree_page(number))[0]
        except PageDamaged:  # counted when it was found; the disk may have become worse since
            return []

    def _values(self, nodes: list[Node]) -> Iterator[tuple[bytes, bytes]]:
        for node in nodes:
            if not node.flags & pages.BIG_VALUE:
                yield node.key, node.data
                continue
            try:
                yield node.key, self.file.read_run(pages.page_number(node.data), node.size)
            except PageDamaged as error:
                self.note(f"value of {node.key.hex()}: {error}")

    # -- finding ----------------------------------------------------------------------------------

    def _find_tables(self) -> None:
        file = self.file
        for number, meta in enumerate(file.metas):
            if meta is None:
                self.note(f"page {number}: no meta page")
        if file.doubt and any(file.metas):
            self.note(file.doubt)
        newest = file.newest
        if newest is not None:
            self._read_free(newest)
            self._walk_main(newest.main)
        if None in file.metas:
            self._take_roots()
        if self.damage_count and (newest is not None or not any(self.leaves.values())):
            self.has_past = self.has_past or newest is None
            self._scan()

    def _read_free(self, meta: Meta) -> None:
        """Learn which pages are free; none where that can't be said for certain."""
        walk = Walk(self.file, self._reached).run(meta.free)
        for _, number in walk.leaves:
            for node in self._nodes(number):
                try:
                    numbers = self._read_numbers(node)
                except PageDamaged as error:
                    walk.damage.append(str(error))
                    continue
                for each in numbers:
                    mark_run(self._free, each, 1)
                if int.from_bytes(node.key, "little") == meta.transaction:
                    self._freed_last.update(numbers)
        for what in walk.damage:
            self.note(f"free list, {what}")
        if walk.damage:
            self.has_past = True
            self._free = bytearray(self.file.pages)

    def _read_numbers(self, node: Node) -> list[int]:
        data = node.data
        if node.flags & pages.BIG_VALUE:
            data = self.file.read_run(pages.page_number(data), node.size)
        numbers = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) - 7, 8)]
        return numbers[1 : 1 + numbers[0]] if numbers else []

    def _walk_main(self, main: Table) -> None:
        """Walk the tables that the main one names."""
        walk = Walk(self.file, self._reached).run(main)
        for what in walk.damage:
            self.note(f"table of tables, {what}")
        tables = named_tables(self.file, [leaf.number for leaf in walk.leaves])
        for name in Tables._fields if main.root != pages.NO_ROOT else ():
            if name not in tables:
                self.note(f"{name}: the table is not there")
                continue
            found = Walk(self.file, self._reached).run(tables[name])
            for what in found.damage:
                self.note(f"{name}, {what}")
            self.leaves[name] += found.leaves
            self.sizes[name] = tables[name].entries

    def _take_roots(self) -> None:
        """Take whole transactions that no meta page tells of."""
        for rooted in seek_roots(self.file, self._reached, self._freed_last):
            self.has_past = True
            for name, leaves in rooted.leaves.items():
                known = {leaf.number for leaf in self.leaves[name]}
                self.leaves[name] += [leaf for leaf in leaves if leaf.number not in known]
                self.sizes[name] = max(self.sizes.get(name, 0), rooted.sizes[name])
            for number, is_reached in enumerate(rooted.reached):
                if is_reached:
                    self._reached[number] = 1

    def _scan(self) -> None:
        """Find leaves that no tree leads to any more."""
        number = pages.FIRST_TREE_PAGE
        while number < self.file.pages:
            count = 1
            if not self._reached[number] and not self._free[number]:
                kind, count = self.file.peek(number)
                if kind == pages.LEAF:
                    self._take_lost_leaf(number)
            number += count

    def _take_lost_leaf(self, number: int) -> None:
        nodes = self._nodes(number)
        table = guess_table([(node.key, self._peek_value(node)) for node in nodes[:LOOKED_AT]])
        if table:
            self.leaves[table].append(Leaf(min(node.key for node in nodes), number))

    def _peek_value(self, node: Node) -> bytes:
        if not node.flags & pages.BIG_VALUE:
            return node.data
        try:
            return self.file.read_run(pages.page_number(node.data), node.size)
        except PageDamaged:
            return b""


def _key(node: Node) -> bytes:
    return node.key
