"""What is made of the bad news of a store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import StoreDamaged, StoreError, StoreFull, StoreUnhealthy
from engine.shard import store_trouble
from engine.shard.store_trouble import StoreTrouble
from engine.telemetry.metrics import Counters

DIRECTORY = Path("/data/shard-0")


def play(monkeypatch: pytest.MonkeyPatch, error: StoreError, refusal: OSError | None = None) -> list[Any]:
    """Let a store fail; return how it was marked, and what the loop heard of."""
    heard: list[Any] = []

    def marking(how: str) -> Any:
        def mark(directory: Path, why: str) -> None:
            if refusal is not None:
                raise refusal
            heard.append((how, directory, why))

        return mark

    monkeypatch.setattr(store_trouble, "mark_damaged", marking("damaged"))
    monkeypatch.setattr(store_trouble, "mark_suspect", marking("suspect"))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: heard.append(context["exception"]))
        StoreTrouble(loop, Counters()).failed(DIRECTORY, error)
        await asyncio.sleep(0)

    asyncio.run(main())
    return heard


@pytest.mark.parametrize(
    ("error", "mark"),
    [
        (StoreDamaged("a page is no page"), "damaged"),
        (StoreUnhealthy("a commit made no sense"), "suspect"),
    ],
)
def test_the_next_process_is_told_how_far_to_trust_it_and_this_one_dies(
    error: StoreError, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked, death = play(monkeypatch, error)
    assert marked == (mark, DIRECTORY, str(error))
    assert isinstance(death, AssertionError)  # a bug, as far as the loop is concerned: the shard ends
    assert str(error) in str(death)


def test_a_full_or_broken_disk_is_not_held_against_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_trouble, "is_of_the_disk", lambda error: isinstance(error, StoreFull))
    (death,) = play(monkeypatch, StoreFull("no space left"))
    assert isinstance(death, AssertionError)


def test_a_store_that_can_not_be_marked_ends_the_shard_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (death,) = play(monkeypatch, StoreDamaged("a page is no page"), OSError("read-only"))
    assert isinstance(death, AssertionError)
    assert "store not marked" in capfd.readouterr().err


@pytest.mark.parametrize("moved", [None, Path("/data/quarantine/x")])
def test_a_store_that_was_moved_aside_is_counted_and_told(
    moved: Path | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []

    def open_trusted(_directory: Path, open_it: Any, _at: float) -> Path | None:
        open_it()
        return moved

    monkeypatch.setattr(store_trouble, "open_trusted", open_trusted)
    counters = Counters()
    loop = asyncio.new_event_loop()
    StoreTrouble(loop, counters).open(DIRECTORY, lambda: opened.append("opened"))
    loop.close()
    assert opened == ["opened"]
    assert counters.counter("mailrail_store_quarantines_total")[0] == (moved is not None)
    assert ("/data/quarantine/x" in capfd.readouterr().err) == (moved is not None)


def test_a_damaged_record_is_counted_and_named(capfd: pytest.CaptureFixture[str]) -> None:
    counters = Counters()
    loop = asyncio.new_event_loop()
    StoreTrouble(loop, counters).damaged(b"\x01\xff", "body: checksum does not match")
    loop.close()
    assert counters.counter("mailrail_damaged_records_total")[0] == 1
    told = capfd.readouterr().err
    assert "01ff" in told
    assert "checksum does not match" in told
