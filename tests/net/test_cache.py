"""The cache, with a clock moved by hand."""

from __future__ import annotations

import asyncio

import pytest

from engine.net.cache import LookupCache


class Source:
    """Looks values up when it is let."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.ttl_s = 60.0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def make(self, key: str) -> tuple[str, float]:
        self.asked.append(key)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return key.upper(), self.ttl_s

    def cache(self, size: int = 10) -> LookupCache[str, str]:
        return LookupCache(size, lambda: self.now, self.make)


async def begin_look_ups(
    count: int,
) -> tuple[Source, LookupCache[str, str], list[asyncio.Future[str]]]:
    """Have so many ask for "a" at once; the source does not answer before its gate is opened."""
    source = Source()
    cache = source.cache()
    source.gate.clear()
    waiting = [asyncio.ensure_future(cache.fetch("a")) for _ in range(count)]
    await asyncio.sleep(0)
    return source, cache, waiting


def test_value_is_kept_until_its_time_is_over(run):
    async def scenario() -> None:
        source = Source()
        cache = source.cache()
        assert cache.find("a") is None
        assert await cache.fetch("a") == "A"
        source.now = 59.9
        assert cache.find("a") == "A"
        assert await cache.fetch("a") == "A"
        source.now = 60.0
        assert cache.find("a") is None
        assert await cache.fetch("a") == "A"
        assert source.asked == ["a", "a"]

    run(scenario())


def test_many_who_ask_at_once_share_one_look_up(run):
    async def scenario() -> None:
        source, _, waiting = await begin_look_ups(50)
        waiting[0].cancel()  # and this harms none of the others
        source.gate.set()
        values = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(values[0], asyncio.CancelledError)
        assert values[1:] == ["A"] * 49
        assert source.asked == ["a"]

    run(scenario())


def test_look_up_that_all_gave_up_is_kept_all_the_same(run):
    async def scenario() -> None:
        source, cache, (waiting,) = await begin_look_ups(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        source.gate.set()
        while cache.find("a") is None:
            await asyncio.sleep(0)

    run(scenario())


def test_error_goes_to_all_who_wait_and_is_not_kept(run):
    async def scenario() -> None:
        source = Source()
        cache = source.cache()
        source.error = RuntimeError("no")
        outcomes = await asyncio.gather(cache.fetch("a"), cache.fetch("a"), return_exceptions=True)
        assert outcomes == [source.error] * 2
        source.error = None
        assert await cache.fetch("a") == "A"

    run(scenario())


def test_full_cache_forgets_what_was_kept_first(run):
    async def scenario() -> None:
        cache = Source().cache(size=3)
        for key in "abc":
            cache.keep(key, key, 60.0)
        cache.keep("a", "new", 60.0)
        cache.keep("d", "d", 60.0)
        assert len(cache) == 3
        assert [cache.find(key) for key in "abcd"] == ["new", None, "c", "d"]

    run(scenario())


def test_wrong_entries_are_forgotten(run):
    async def scenario() -> None:
        cache = Source().cache()
        cache.keep("a", "1", 60.0)
        cache.keep("b", "2", 60.0)
        cache.forget(lambda key, value: value == "1")
        assert (cache.find("a"), cache.find("b")) == (None, "2")
        cache.drop("a")
        cache.drop("b")
        assert cache.find("b") is None

    run(scenario())


def test_closing_ends_the_look_ups_under_way(run):
    async def scenario() -> None:
        _, cache, (waiting,) = await begin_look_ups(1)
        await asyncio.sleep(0)
        cache.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(scenario())
