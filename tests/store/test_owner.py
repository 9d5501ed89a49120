"""One owner at a time, by name."""

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
