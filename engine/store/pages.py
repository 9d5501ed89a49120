"""LMDB's data file, page by page, read with pread: damage is a value here, and nothing can kill the reader.

liblmdb maps the file and trusts it: a page that is gone is SIGBUS, one that is altered may be SIGSEGV or
an assertion. So what looks at damaged stores reads them without it. Page 0 and 1 are meta pages, the rest
branches and leaves of B+ trees, and runs of overflow pages for values that don't fit into a leaf.

Owns: the form of the file (LMDB 0.9, 64-bit, page header of 16 octets).
Never: writes, maps the file, knows what a table holds.
Fails: PageDamaged where one page can't be had; OSError where the file can't be opened.
Source: mdb.c of LMDB 0.9 (MDB_page, MDB_node, MDB_meta, MDB_db).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

BRANCH, LEAF, OVERFLOW, META = 0x01, 0x02, 0x04, 0x08
KNOWN_FLAGS = BRANCH | LEAF | OVERFLOW | META
BIG_VALUE, SUB_TABLE = 0x01, 0x02  # of a node: its value is in overflow pages; it is a table's record
FIRST_TREE_PAGE = 2
NO_ROOT = (1 << 64) - 1
HEADER_BYTES = 16
MAGIC = 0xBEEFC0DE
DATA_VERSION = 1
MIN_PAGE_BYTES, MAX_PAGE_BYTES = 256, 0x8000
# Values in overflow pages are read by what finds a table, for claims and as entries: a few times each. Beyond
# that many nodes lead to the same pages, and reading would take as long as somebody likes.
MAX_RUN_READS = 16

_HEADER = struct.Struct("=QHHHH")  # number, padding, flags, lower and upper end of the free room
_RUN = struct.Struct("=12xI")  # pages of a run of overflow pages
_NODE = struct.Struct("=HHHH")  # low and high half of the size or page number, flags or more of it, key size
_TABLE = struct.Struct("=IHHQQQQQ")
_META = struct.Struct("=16xIIQQ48s48sQQ")  # header; magic, version, address, size; two tables; last page, txn
_PAGE_NUMBER = struct.Struct("=Q")
META_BYTES = _META.size


class PageDamaged(Exception):
    """A page that is not what it should be; `str()` says which and why."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"page {number}: {why}")
        self.number = number


class Table(NamedTuple):
    """Where a table is: its root page, NO_ROOT if it is empty, and how many entries it should have."""

    root: int
    entries: int
    depth: int


class Meta(NamedTuple):
    """A meta page: the two tables of the file and the transaction that wrote them."""

    page_bytes: int
    free: Table
    main: Table
    last_page: int
    transaction: int


class Node(NamedTuple):
    """An entry of a leaf; `data` is its value, or the number of the first page of it (BIG_VALUE)."""

    key: bytes
    flags: int
    data: bytes
    size: int


def parse_meta(octets: bytes) -> Meta | None:
    """Return what a meta page says, or None if it is none."""
    if len(octets) < META_BYTES:
        return None
    magic, version, _, _, free, main, last_page, transaction = _META.unpack_from(octets)
    page_bytes = _TABLE.unpack(free)[0]
    if magic != MAGIC or version != DATA_VERSION or not MIN_PAGE_BYTES <= page_bytes <= MAX_PAGE_BYTES:
        return None
    if page_bytes & (page_bytes - 1):  # as LMDB has it, a power of two
        return None
    return Meta(page_bytes, parse_table(free), parse_table(main), last_page, transaction)


def parse_table(record: bytes) -> Table:
    """Return the record of a table."""
    _, _, depth, _, _, _, entries, root = _TABLE.unpack(record)
    return Table(root, entries, depth)


class PageFile:
    """One data.mdb, open for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._file).st_size
        self.metas, self.doubt = self._read_metas()
        self.page_bytes = max(
            (meta.page_bytes for meta in self.metas if meta), default=os.sysconf("SC_PAGE_SIZE")
        )
        self.pages = -(-self.size_bytes // self.page_bytes)
        self.pages_read = 0
        self._run_pages_read = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    @property
    def newest(self) -> Meta | None:
        """The meta page of the last transaction that can be read."""
        return max((meta for meta in self.metas if meta), key=lambda meta: meta.transaction, default=None)

    def _read_metas(self) -> tuple[tuple[Meta | None, Meta | None], str]:
        """Return the two meta pages, None for what is none or can't be true, and what is wrong with them."""
        first = parse_meta(self._pread(META_BYTES, 0))
        page_bytes = first.page_bytes if first else os.sysconf("SC_PAGE_SIZE")
        second = parse_meta(self._pread(META_BYTES, page_bytes))
        first, second = _if_whole(first, 0, self), _if_whole(second, 1, self)
        if first is None or second is None:
            return (first, second), "" if first or second else "neither of its first two pages is a meta page"
        if why := why_apart(first, second):
            is_second = second.transaction > first.transaction
            return (None if is_second else first, second if is_second else None), why
        return (first, second), ""

    def read_tree_page(self, number: int) -> bytes:
        """Return a branch or leaf page.

        Raises:
            PageDamaged: it is not in the file, can't be read, or is neither.
        """
        octets = self._read(number)
        own_number, _, flags, lower, upper = _HEADER.unpack_from(octets)
        if own_number != number:
            raise PageDamaged(number, f"says that it is page {own_number}")
        if flags & KNOWN_FLAGS not in (BRANCH, LEAF):
            raise PageDamaged(number, f"neither branch nor leaf, flags {flags:#x}")
        if not HEADER_BYTES <= lower <= upper <= self.page_bytes or lower % 2:
            raise PageDamaged(number, f"free room from {lower} to {upper}")
        return octets

    def read_run(self, first: int, size: int) -> bytes:
        """Return a value from a run of overflow pages; its checksum is the reader's to check.

        Raises:
            PageDamaged: it is not in the file, or can't be read.
        """
        if first < FIRST_TREE_PAGE or first * self.page_bytes + HEADER_BYTES + size > self.size_bytes:
            raise PageDamaged(first, f"{size} octets from there are not in the file")
        kind, pages = self.peek(first)
        if kind == OVERFLOW and pages < self.run_pages(size):
            raise PageDamaged(first, f"no overflow page for {size} octets")
        self._run_pages_read += self.run_pages(size)
        if self._run_pages_read > MAX_RUN_READS * self.pages:
            raise PageDamaged(first, f"read {MAX_RUN_READS} times over: too many values lead there")
        self.pages_read += self.run_pages(size)
        try:
            octets = self._pread(size, first * self.page_bytes + HEADER_BYTES)
        except OSError as error:
            raise PageDamaged(first, str(error.strerror)) from error
        if len(octets) < size:
            raise PageDamaged(first, "the file ends within it")
        return octets

    def check_run(self, first: int, size: int) -> str:
        """Return what is wrong with the head of a run of overflow pages; "" if nothing is."""
        try:
            octets = self._pread(HEADER_BYTES, first * self.page_bytes)
        except OSError as error:
            return str(error.strerror)
        if len(octets) < HEADER_BYTES:
            return "not in the file"
        own_number, _, flags, _, _ = _HEADER.unpack(octets)
        if own_number != first or not flags & OVERFLOW or _RUN.unpack(octets)[0] < self.run_pages(size):
            return f"no overflow page for {size} octets"
        return ""

    def run_pages(self, size: int) -> int:
        """Return how many pages a value of `size` octets takes."""
        return -(-(size + HEADER_BYTES) // self.page_bytes)

    def peek(self, number: int) -> tuple[int, int]:
        """Return (kind, pages) of whatever stands at `number`: LEAF, BRANCH, OVERFLOW, or 0 for neither."""
        try:
            octets = self._pread(HEADER_BYTES, number * self.page_bytes)
        except OSError:
            return 0, 1
        if len(octets) < HEADER_BYTES:
            return 0, 1
        own_number, _, flags, _, _ = _HEADER.unpack(octets)
        if own_number != number or flags & KNOWN_FLAGS not in (BRANCH, LEAF, OVERFLOW):
            return 0, 1
        kind = flags & KNOWN_FLAGS
        return kind, max(1, _RUN.unpack(octets)[0]) if kind == OVERFLOW else 1

    def _read(self, number: int) -> bytes:
        if not FIRST_TREE_PAGE <= number < self.pages:
            raise PageDamaged(number, "not in the file")
        self.pages_read += 1
        try:
            octets = self._pread(self.page_bytes, number * self.page_bytes)
        except OSError as error:
            raise PageDamaged(number, str(error.strerror)) from error
        if len(octets) < self.page_bytes:
            raise PageDamaged(number, "the file ends within it")
        return octets

    def _pread(self, size: int, at: int) -> bytes:
        """Read `size` octets; fewer only where the file ends, none where `at` is no place in it."""
        if not 0 <= at < self.size_bytes:  # of a page number that was altered: more than the system can take
            return b""
        octets = os.pread(self._file, size, at)
        while len(octets) < size and (more := os.pread(self._file, size - len(octets), at + len(octets))):
            octets += more
        return octets


def _if_whole(meta: Meta | None, number: int, file: PageFile) -> Meta | None:
    """Return `meta` unless it can't be true; one whose pages are not in the file is, for files get cut."""
    if meta is None:
        return None
    own_number, _, flags, _, _ = _HEADER.unpack(file._pread(HEADER_BYTES, number * meta.page_bytes))
    return meta if own_number == number and flags & META else None


def why_apart(first: Meta, second: Meta) -> str:
    """Return what two meta pages say that can't be true together; "" if it can.

    Transactions are counted and write to one and the other page in turn, and the file never gets shorter.
    Without this a flipped bit would take the last transaction away, or have pages in use written over.
    """
    older, newer = sorted((first, second), key=lambda meta: meta.transaction)
    if newer.transaction - older.transaction != min(1, newer.transaction):
        return f"meta pages of the transactions {first.transaction} and {second.transaction}"
    if first.page_bytes != second.page_bytes:
        return f"meta pages that say {first.page_bytes} and {second.page_bytes} octets a page"
    roots = [table.root for table in (newer.free, newer.main) if table.root != NO_ROOT]
    if newer.last_page < max((older.last_page, *roots)):
        return f"meta pages whose last pages are {first.last_page} and {second.last_page}"
    return ""


def is_leaf(octets: bytes) -> bool:
    return bool(_HEADER.unpack_from(octets)[2] & LEAF)


def count_nodes(octets: bytes) -> int:
    """Return how many nodes a tree page says that it has."""
    return int(_HEADER.unpack_from(octets)[3] - HEADER_BYTES) // 2


def parse_branch(octets: bytes, number: int) -> list[int]:
    """Return the children of a branch page, in order.

    Raises:
        PageDamaged: a node is not within the page.
    """
    children = []
    for at in _offsets(octets):
        if not HEADER_BYTES <= at <= len(octets) - _NODE.size:
            raise PageDamaged(number, f"a node at {at}")
        low, high, more, _ = _NODE.unpack_from(octets, at)
        children.append(low | high << 16 | more << 32)
    return children


def parse_leaf(octets: bytes) -> tuple[list[Node], int]:
    """Return the nodes of a leaf page, and how many more can't be read."""
    nodes, bad = [], 0
    for at in _offsets(octets):
        if not HEADER_BYTES <= at <= len(octets) - _NODE.size:
            bad += 1
            continue
        low, high, flags, key_bytes = _NODE.unpack_from(octets, at)
        size = low | high << 16
        start = at + _NODE.size + key_bytes
        end = start + (_PAGE_NUMBER.size if flags & BIG_VALUE else size)
        if end > len(octets) or not key_bytes:
            bad += 1
            continue
        nodes.append(Node(octets[at + _NODE.size : start], flags, octets[start:end], size))
    return nodes, bad


def page_number(data: bytes) -> int:
    """Return the page that a node with BIG_VALUE refers to."""
    return int(_PAGE_NUMBER.unpack(data)[0])


def _offsets(octets: bytes) -> tuple[int, ...]:
    return struct.unpack_from(f"={count_nodes(octets)}H", octets, HEADER_BYTES)
