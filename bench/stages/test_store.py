"""The store: put, amend and remove, both indexes, commit shared by 50."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.stages.engine import Wired
from bench.stages.stage import Stages
from engine.core.envelope import Delivery
from engine.store.batch import Batch
from engine.store.commit import Writer
from engine.store.environment import Environment, StoreOptions

BUDGET_US = 40.0
PER_COMMIT = 50  # what pacing gathers under load (bench/store_commit.py)
STANDING = 5000  # messages that are in the store all the time


class Committer:
    """An environment and its commits, made in this thread."""

    def __init__(self, path: Path) -> None:
        self.environment = Environment(path, StoreOptions(map_size_bytes=8 << 30))
        self.environment.open()
        self._writer = Writer(self.environment.tables)

    def commit(self, batch: Batch) -> None:
        txn = self.environment.lmdb.begin(write=True)
        self._writer.write(txn, batch, time.time())
        txn.commit()

    def put(self, deliveries: list[Delivery]) -> None:
        batch = Batch()
        for delivery in deliveries:
            batch.put([delivery], delivery.message)
        self.commit(batch)

    def amend(self, deliveries: list[Delivery], due_at: float) -> None:
        batch = Batch()
        for delivery in deliveries:
            batch.amend(delivery, due_at)
        self.commit(batch)

    def remove(self, deliveries: list[Delivery]) -> None:
        batch = Batch()
        for delivery in deliveries:
            batch.remove(delivery)
        self.commit(batch)


@pytest.fixture
def committer(wired: Wired) -> Iterator[Committer]:
    path = Path(tempfile.mkdtemp(prefix="bench-stage-", dir="/var/tmp"))
    made = Committer(path)
    for _ in range(STANDING // PER_COMMIT):
        made.put(wired.make_deliveries(PER_COMMIT))
    yield made
    made.environment.close()
    shutil.rmtree(path)


def test_put(benchmark: Any, stages: Stages, wired: Wired, committer: Committer) -> None:
    note = f"{PER_COMMIT} a commit, kernel's part of the sync included"
    stages.run(
        benchmark,
        "store: put",
        BUDGET_US,
        committer.put,
        lambda: (wired.make_deliveries(PER_COMMIT),),
        messages=PER_COMMIT,
        note=note,
    )


def test_amend(benchmark: Any, stages: Stages, wired: Wired, committer: Committer) -> None:
    def prepare() -> tuple[Any, ...]:
        deliveries = wired.make_deliveries(PER_COMMIT)
        committer.put(deliveries)
        return deliveries, time.time() + 300

    stages.run(benchmark, "store: amend", BUDGET_US, committer.amend, prepare, messages=PER_COMMIT)


def test_remove(benchmark: Any, stages: Stages, wired: Wired, committer: Committer) -> None:
    def prepare() -> tuple[Any, ...]:
        deliveries = wired.make_deliveries(PER_COMMIT)
        committer.put(deliveries)
        return (deliveries,)

    stages.run(benchmark, "store: remove", BUDGET_US, committer.remove, prepare, messages=PER_COMMIT)
