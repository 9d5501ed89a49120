"""Who an injector is: what is computed, what is remembered, what is told when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from engine.core.reply import Reply
from engine.inject import passwords as module
from engine.inject.attempts import MAX_FAILURES_PER_ADDRESS, UNKNOWN, LocalTries
from engine.inject.passwords import (
    ACCEPTED,
    BUSY,
    MAX_WAITING,
    TOO_MANY_FOR_ADDRESS,
    UNCOUNTED,
    WRONG,
    Passwords,
)
from engine.settings.password import PasswordHash
from engine.smtp.auth import Credentials
from engine.telemetry.metrics import Counters
from tests.fakes.submission import CUSTOMERS, HASH, PASSWORD, USER, make_passwords, matches_plainly

RIGHT = Credentials(USER, PASSWORD)
BAD = Credentials(USER, b"guess")


class Matching:
    """Compares without cost, remembers with what, and waits while a test wants it to."""

    def __init__(self) -> None:
        self.hashes: list[PasswordHash] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, hashed: PasswordHash, password: bytes) -> bool:
        self.may_go.wait(10)
        self.hashes.append(hashed)
        return matches_plainly(hashed, password)


def scene(
    run: Any, play: Callable[[Passwords, Matching, list[tuple[Reply, str]]], Coroutine[Any, Any, None]]
) -> tuple[Matching, Counters]:
    counters, matching = Counters(), Matching()

    async def scenario() -> None:
        made = make_passwords(counters, CUSTOMERS, matching)
        told: list[tuple[Reply, str]] = []
        try:
            await play(made, matching, told)
        finally:
            matching.may_go.set()
            made.close()

    run(scenario())
    return matching, counters


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAILURE_S", 0.0)


async def ask(made: Passwords, credentials: Credentials, peer: str = "192.0.2.1") -> tuple[Reply, str]:
    answer: asyncio.Future[tuple[Reply, str]] = asyncio.get_running_loop().create_future()
    made.check(credentials, "in", peer, lambda reply, user: answer.set_result((reply, user)))
    return await answer


def test_right_password_is_computed_once(run: Any) -> None:
    async def play(made: Passwords, matching: Matching, told: Any) -> None:
        for _ in range(3):
            assert await ask(made, RIGHT) == (ACCEPTED, USER)
        assert made.customer_of(USER) == "acme"

    matching, counters = scene(run, play)
    assert matching.hashes == [HASH]
    [row] = [r for r in counters.snapshot()["counters"] if r[0] == "mailrail_authentications_total"]
    assert (list(row[1]), row[2]) == (["in", "accepted"], 3)


def test_wrong_one_is_computed_each_time_and_not_remembered(run: Any) -> None:
    async def play(made: Passwords, matching: Matching, told: Any) -> None:
        assert await ask(made, BAD) == (WRONG, "")
        assert await ask(made, RIGHT) == (ACCEPTED, USER)
        assert await ask(made, BAD) == (WRONG, "")

    assert len(scene(run, play)[0].hashes) == 3


def test_user_that_there_is_not_costs_as_much_as_the_dearest(run: Any) -> None:
    """No enumeration: the same reply, the same work."""

    async def play(made: Passwords, matching: Matching, told: Any) -> None:
        assert await ask(made, Credentials("nobody", b"guess")) == (WRONG, "")
        made.use({})
        assert await ask(made, Credentials("nobody", b"guess")) == (WRONG, "")

    first, second = scene(run, play)[0].hashes
    assert first.cost == HASH.cost
    assert second.cost > 0


def test_someones_password_is_no_key_to_a_user_that_there_is_not(run: Any) -> None:
    async def play(made: Passwords, matching: Matching, told: Any) -> None:
        for password in (PASSWORD, b"secret"):
            assert await ask(made, Credentials("nobody", password)) == (WRONG, "")

    scene(run, play)


def test_failure_is_told_at_a_fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fakes.virtual_loop import run_virtually

    monkeypatch.setattr(module, "FAILURE_S", 2.0)

    class SlowPasswords(Passwords):
        async def _is_right(self, credentials: Credentials) -> bool:
            await asyncio.sleep(0.5 if credentials.user == USER else 0.1)
            return False

    async def scenario() -> list[float]:
        made, loop, took = SlowPasswords(Counters()), asyncio.get_running_loop(), []
        for user in (USER, "nobody"):
            began = loop.time()
            assert (await ask(made, Credentials(user, b"x")))[0] == WRONG
            took.append(loop.time() - began)
        return took

    assert run_virtually(scenario()) == pytest.approx([2.0, 2.0])


def test_reload_forgets_what_was_right(run: Any) -> None:
    async def play(made: Passwords, matching: Matching, told: Any) -> None:
        await ask(made, RIGHT)
        made.use({"globex": CUSTOMERS["globex"]})
        assert await ask(made, RIGHT) == (WRONG, "")
        assert made.customer_of(USER) == ""

    scene(run, play)


def test_reload_while_a_hash_is_computed_counts(run: Any) -> None:
    async def play(made: Passwords, matching: Matching, told: Any) -> None:
        matching.may_go.clear()
        asking = asyncio.ensure_future(ask(made, RIGHT))
        await asyncio.sleep(0)
        changed = msgspec.structs.replace(CUSTOMERS["acme"], credentials=())
        made.use({"acme": changed})
        matching.may_go.set()
        assert await asking == (WRONG, "")

    scene(run, play)


def test_more_than_may_wait_are_told_to_come_again(run: Any) -> None:
    async def play(made: Passwords, matching: Matching, told: list[tuple[Reply, str]]) -> None:
        matching.may_go.clear()
        waiting = [asyncio.ensure_future(ask(made, BAD, f"192.0.2.{n}")) for n in range(MAX_WAITING - 1)]
        waiting.append(asyncio.ensure_future(ask(made, Credentials("bob", b"x"), "192.0.2.250")))
        await asyncio.sleep(0)
        assert await ask(made, Credentials("bob", b"x"), "192.0.2.251") == (BUSY, "")
        matching.may_go.set()
        await asyncio.gather(*waiting)

    monkey = pytest.MonkeyPatch()
    monkey.setattr("engine.inject.attempts.MAX_FAILURES_PER_USER", 1000)
    monkey.setattr("engine.inject.attempts.Attempts.limit", lambda *_: "")
    try:
        scene(run, play)
    finally:
        monkey.undo()


def test_too_many_failures_are_refused_before_anything_is_computed(run: Any) -> None:
    async def play(made: Passwords, matching: Matching, told: Any) -> None:
        for _ in range(MAX_FAILURES_PER_ADDRESS):
            assert await ask(made, Credentials("bob", b"guess")) == (WRONG, "")
        assert await ask(made, RIGHT) == (TOO_MANY_FOR_ADDRESS, "")
        assert (await ask(made, Credentials("bob", b"secret"), "198.51.100.1"))[0].code == 454

    matching, counters = scene(run, play)
    assert len(matching.hashes) == MAX_FAILURES_PER_ADDRESS
    rows = counters.snapshot()["counters"]
    found = {labels[1]: n for name, labels, n in rows if name == "mailrail_authentications_total"}
    assert found == {"failed": MAX_FAILURES_PER_ADDRESS, "limited": 2}


def test_what_is_remembered_is_bounded_and_no_password(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 1)

    async def play(made: Passwords, matching: Matching, told: Any) -> None:
        await ask(made, RIGHT)
        await ask(made, Credentials("bob", b"secret"))
        assert len(made._remembered) == 1
        assert all(len(digest) == 32 and b"secret" not in digest for digest in made._remembered)

    scene(run, play)


def test_where_nobody_can_say_now_it_is_put_off_and_nothing_is_computed(run: Any) -> None:
    class Away(LocalTries):
        def begin(self, peer: str, user: str, now: float, decided: Any, *, is_known: bool = False) -> None:
            decided(UNKNOWN)

    async def play(made: Passwords, matching: Matching, told: Any) -> None:
        await ask(made, RIGHT)
        made._tries = Away()
        assert await ask(made, RIGHT) == (UNCOUNTED, "")
        assert await ask(made, BAD) == (UNCOUNTED, "")
        assert made._waiting == 0

    matching, counters = scene(run, play)
    assert len(matching.hashes) == 1
    rows = [r for r in counters.snapshot()["counters"] if r[0] == "mailrail_authentications_total"]
    assert {row[1][1]: row[2] for row in rows} == {"accepted": 1, "busy": 2}


def test_who_waits_for_an_answer_counts_among_those_who_wait(run: Any) -> None:
    class Slow(LocalTries):
        asked: list[Any] = []

        def begin(self, peer: str, user: str, now: float, decided: Any, *, is_known: bool = False) -> None:
            self.asked.append((decided, is_known))

    async def play(made: Passwords, matching: Matching, told: list[tuple[Reply, str]]) -> None:
        made._tries = slow = Slow()
        for number in range(MAX_WAITING + 1):
            made.check(BAD, "in", f"192.0.2.{number}", lambda reply, user: told.append((reply, user)))
        assert [is_known for _, is_known in slow.asked] == [False] * MAX_WAITING + [True]
        slow.asked[-1][0]("")
        slow.asked[0][0]("address")
        assert told == [(BUSY, ""), (TOO_MANY_FOR_ADDRESS, "")]
        assert made._waiting == MAX_WAITING - 1

    scene(run, play)
