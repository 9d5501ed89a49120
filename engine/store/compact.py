"""A store's file written anew without its free pages, which LMDB never gives back to the disk.

The copy is made beside the file, compared with it by the number of entries of each table, and takes its
place by one rename; a crash before that leaves the file as it was.

Never: touches a store that is damaged: the copy would be, too.
Fails: StoreError; the file is as it was then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import lmdb

from engine.core.errors import StoreDamaged, StoreUnhealthy
from engine.store.environment import Environment, StoreOptions, sync_directory, translate
from engine.store.image import StoreImage

COPY = "compact.new"
DATA = "data.mdb"


class Compacted(NamedTuple):
    """Octets of the file before and after."""

    store: str
    before_bytes: int
    after_bytes: int


def compact_store(directory: Path, options: StoreOptions) -> Compacted:
    """Compact the store in `directory`; takes its lock.

    Raises:
        StoreUnhealthy: another process owns it, or the disk has no room for the copy.
        StoreDamaged: it has to be salvaged.
    """
    if not (directory / DATA).exists():
        raise StoreUnhealthy(f"{directory}: there is no store")
    _check_pages(directory)
    copy = directory / COPY
    environment = Environment(directory, options)
    environment.open()
    try:
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(mode=0o700)
        before = _count(environment.lmdb, environment.path)
        environment.lmdb.copy(str(copy), compact=True)
        _check_copy(copy, before)
        (copy / DATA).chmod(0o600)
        _sync_file(copy / DATA)
        before_bytes = (directory / DATA).stat().st_blocks * 512
        (copy / DATA).replace(directory / DATA)
        sync_directory(directory)
        return Compacted(str(directory), before_bytes, (directory / DATA).stat().st_blocks * 512)
    except (lmdb.Error, OSError) as error:
        raise translate(error, directory) from error
    finally:
        environment.close()
        shutil.rmtree(copy, ignore_errors=True)


def _check_pages(directory: Path) -> None:
    """Raise StoreDamaged where a page is: liblmdb, which makes the copy, might not survive it."""
    try:
        image = StoreImage(directory / DATA)
    except OSError as error:
        raise StoreUnhealthy(f"{directory}: {error}") from error
    with contextlib.closing(image):
        if image.damage_count:
            raise StoreDamaged(f"{directory}: damaged ({image.damage[0]}): salvage it first")


def _count(environment: lmdb.Environment, path: Path) -> dict[bytes, int]:
    """Return how many entries each table has."""
    try:
        with environment.begin() as txn:
            names = [bytes(name) for name in txn.cursor().iternext(values=False)]
        found = {}
        for name in names:
            table = environment.open_db(name, create=False)
            with environment.begin() as txn:
                found[name] = int(txn.stat(db=table)["entries"])
        return found
    except lmdb.Error as error:
        raise translate(error, path) from error


def _check_copy(copy: Path, before: dict[bytes, int]) -> None:
    with lmdb.open(str(copy), max_dbs=len(before), readonly=True, lock=False) as environment:
        after = _count(environment, copy)
    if after != before:
        raise StoreDamaged(f"{copy}: the copy has {after}, the store {before}")


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
