"""One owner at a time, by name."""

import errno
import os

import pytest

from engine.core.errors import StoreUnhealthy
from engine.store.owner import POLL_S, OwnerLock


def test_second_owner_is_refused_by_file_and_process_after_its_wait(tmp_path):
    first, second = OwnerLock(tmp_path), OwnerLock(tmp_path)
    first.take(0.0)
    waits: list[float] = []
    with pytest.raises(StoreUnhealthy, match=rf"owner: another process.*process {os.getpid()}"):
        second.take(4 * POLL_S, waits.append)
    assert waits == [POLL_S] * 4
    first.release()
    first.release()
    second.take(0.0)
    second.release()


def test_full_disk_keeps_nobody_from_its_store(tmp_path, monkeypatch):
    """Its shard has to start: deliveries are what empties the disk."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "pwrite", refuse)
    lock = OwnerLock(tmp_path)
    lock.take(0.0)
    with pytest.raises(StoreUnhealthy):
        OwnerLock(tmp_path).take(0.0)
    lock.release()
