"""Claims of unlinked files are forgotten once the unlinking is on disk, not before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.inject.settled import SettledClaims
from engine.store.memory import MemoryStore
from engine.store.records import encode_claim


class Disk:
    def __init__(self) -> None:
        self.syncs = 0
        self.is_broken = False
        self.during: Callable[[], None] = lambda: None

    def sync(self) -> None:
        self.during()
        self.syncs += 1
        if self.is_broken:
            raise OSError(5, "Input/output error")


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    for name in ("a", "b"):
        made._batch.claim(name.encode(), encode_claim(name.encode(), bytes(12)))
    made.commit()
    return made


def test_claims_are_forgotten_behind_a_sync(store: MemoryStore, run: Callable[..., Any]) -> None:
    disk = Disk()
    settled = SettledClaims(store, disk.sync)
    settled.add("a")
    disk.during = lambda: store.claim_of("a") or pytest.fail("forgotten before the sync")  # type: ignore[assignment]
    run(settled.forget())
    store.commit()
    assert disk.syncs == 1
    assert store.claim_of("a") is None
    assert store.claim_of("b") is not None


def test_claim_is_known_as_settled_until_the_store_has_forgotten_it(
    store: MemoryStore, run: Callable[..., Any]
) -> None:
    settled = SettledClaims(store, Disk().sync)
    settled.add("a")
    run(settled.forget())
    assert "a" in settled
    store.commit()
    assert "a" not in settled


def test_disk_that_can_not_be_synced_keeps_the_claims(store: MemoryStore, run: Callable[..., Any]) -> None:
    disk = Disk()
    disk.is_broken = True
    settled = SettledClaims(store, disk.sync)
    settled.add("a")
    run(settled.forget())
    store.commit()
    assert store.claim_of("a") is not None
    disk.is_broken = False
    run(settled.forget())
    store.commit()
    assert store.claim_of("a") is None


def test_nothing_settled_costs_no_sync(store: MemoryStore, run: Callable[..., Any]) -> None:
    disk = Disk()
    run(SettledClaims(store, disk.sync).forget())
    assert disk.syncs == 0
