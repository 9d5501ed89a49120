"""Spool files in flight: unlinked after the commit, failed with a reason, never sent twice, never lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.core.errors import StoreUnhealthy
from engine.core.reply import make_reply
from engine.inject import flight as flight_module
from engine.inject.flight import FIRST_BACK_OFF_S, MAX_BACK_OFF_S, Flight, format_name
from engine.inject.spool_directory import SpoolDirectory
from engine.settings.model import ListenerSettings
from engine.store.memory import MemoryStore
from engine.telemetry.metrics import Counters
from tests.fakes.feeds import Door

SETTINGS = ListenerSettings(
    name="spool:/s", protocol="spool", customer="acme", max_message_size_bytes=2000, max_recipients=3
)
MAIL = b"X-Sender: <a@acme.example>\nX-Receiver: <b@x.example>\nSubject: x\n\nbody\n"


class Spool:
    """A spool, its store, and one life of the shard that serves it."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.options = options
        self.store = MemoryStore()
        self.door = Door(self.store)
        self.counters = Counters()
        self.now = 0.0
        self.freed = 0
        self.reused: list[str] = []
        self.begin()

    def begin(self, shard: int = 0, shards: int = 1, knows: Any = lambda _shard, _claim: False) -> None:
        self.directory = SpoolDirectory(self.path, shard)
        self.directory.open()
        self.flight = Flight(
            msgspec.structs.replace(SETTINGS, **self.options.get("settings", {})),
            self.directory,
            self.door,
            self.store,
            self.counters,
            lambda: self.now,
            is_async=self.door.is_async,
            on_free=self.free,
            on_reuse=self.reused.append,
        )
        self.recovered = self.flight.recover(shards, knows)

    def crash(self) -> None:
        """The process dies: what was staged is gone with it."""
        self.flight.close()
        self.directory.close()
        self.store._batch = type(self.store._batch)()

    def free(self) -> None:
        self.freed += 1

    def put(self, name: str = "m", octets: bytes = MAIL) -> Path:
        (self.path / "tmp" / name).write_bytes(octets)
        return (self.path / "tmp" / name).rename(self.path / "new" / name)

    def take(self, name: str = "m", octets: bytes = MAIL) -> None:
        self.put(name, octets)
        assert self.directory.claim(name)
        self.flight.take(name)

    def take_waiting(self) -> None:
        while self.flight.waiting:
            self.flight.take(self.flight.waiting.popleft())

    def forget(self, run: Callable[..., Any]) -> None:
        run(self.flight._settled.forget())
        self.store.commit()

    def names(self, directory: str) -> list[str]:
        return sorted(os.listdir(self.path / directory))

    def reason(self, name: str = "m") -> str:
        assert self.names("claimed/0") == []
        return (self.path / "failed" / f"{name}.reason").read_text().rstrip()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def test_file_is_unlinked_after_the_commit(spool: Spool) -> None:
    spool.take()
    assert spool.names("claimed/0") == ["m"]
    assert spool.flight.count == 1
    spool.store.commit()
    assert spool.names("claimed/0") == []
    assert (spool.flight.count, spool.flight.size_bytes, spool.flight.held) == (0, 0, set())
    assert spool.door.taken == [b"Subject: x\r\n\r\nbody\r\n"]


def test_answer_before_the_commit_does_not_unlink(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.door.is_async = True
    spool.begin()
    spool.take()
    assert spool.names("claimed/0") == ["m"]
    spool.store.commit()
    assert spool.names("claimed/0") == []


def test_claim_is_forgotten_after_the_unlinking(spool: Spool, run: Callable[..., Any]) -> None:
    spool.take()
    spool.store.commit()
    assert len(spool.store.claims) == 1
    spool.forget(run)
    assert spool.store.claims == {}


def test_context_names_the_file_and_its_claim(spool: Spool, intake: Any) -> None:
    spool.flight._acceptor = intake
    spool.take("a\nb")
    context = intake.taken[0][4]
    assert (context.feed, context.customer, context.peer) == ("spool", "acme", "a\\nb")
    assert context.claim.endswith("/a\nb")


# -- crashes ----------------------------------------------------------------------------------------------


def test_crash_before_the_commit_takes_the_file_again(spool: Spool) -> None:
    spool.take()
    spool.crash()
    spool.begin()
    assert spool.recovered == 1
    spool.take_waiting()
    spool.store.commit()
    assert len(spool.store.bodies) == 1
    assert spool.names("claimed/0") == []


def test_crash_between_commit_and_unlink_sends_once(spool: Spool) -> None:
    spool.take()
    spool.flight.close()  # so that the commit is not heard of
    spool.store.commit()
    spool.crash()
    spool.begin()
    spool.take_waiting()
    assert len(spool.door.taken) == 1
    assert spool.names("claimed/0") == []


def test_file_that_a_power_cut_brings_back_is_not_sent_again(spool: Spool) -> None:
    spool.put()
    os.link(spool.path / "new" / "m", spool.path / "tmp" / "copy")
    spool.directory.claim("m")
    spool.flight.take("m")
    spool.store.commit()
    spool.crash()
    (spool.path / "tmp" / "copy").rename(spool.path / "new" / "m")
    spool.begin()
    assert spool.directory.claim("m")
    spool.flight.take("m")
    assert len(spool.door.taken) == 1
    assert spool.names("claimed/0") == []


def test_claims_of_files_that_are_gone_are_forgotten_at_the_next_start(spool: Spool) -> None:
    spool.take("gone")
    spool.take("there")
    spool.flight.close()
    spool.store.commit()
    (spool.path / "claimed" / "0" / "gone").unlink()
    spool.crash()
    spool.begin()
    spool.store.commit()
    (claim,) = spool.store.claims
    assert claim.endswith(b"/there")


def test_claims_of_a_lost_shard_are_known_by_its_store(spool: Spool) -> None:
    spool.crash()
    spool.begin(shard=3, shards=4)
    for name in ("stored", "open"):
        spool.take(name)
    spool.flight.close()
    spool.store.commit()
    stored = next(claim for claim in spool.store.claims if claim.endswith(b"/stored")).decode()
    spool.crash()
    spool.store = MemoryStore()
    spool.door.store = spool.store
    spool.begin(shard=1, shards=2, knows=lambda shard, claim: shard == 3 and claim == stored)
    spool.take_waiting()
    spool.store.commit()
    assert len(spool.store.bodies) == 1
    assert spool.names("claimed/1") == spool.names("claimed/3") == []


class Bug(Exception):
    """What the loop's exception handler of a shard would end the process for."""


def test_file_of_which_the_shard_died_is_taken_first_and_at_the_second_death_fails(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = flight_module.parse_pickup

    def stumble(octets: bytes) -> Any:
        if b"poison" in octets:
            raise Bug
        return parse(octets)

    monkeypatch.setattr(flight_module, "parse_pickup", stumble)
    for name in ("a", "b"):
        spool.take(name)
    with pytest.raises(Bug):
        spool.take("m", MAIL + b"poison\n")
    spool.crash()
    spool.begin()
    assert list(spool.flight.waiting) == ["m", "a", "b"]
    with pytest.raises(Bug):
        spool.take_waiting()
    spool.crash()
    spool.begin()
    spool.take_waiting()
    spool.store.commit()
    assert spool.reason() == "the shard died 2 times while it read this file"
    assert len(spool.store.bodies) == 2


def test_spool_serves_without_that_record(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    spool.crash()
    monkeypatch.setattr(flight_module, "SuspectRecord", refuse)
    spool.begin()
    spool.take()
    spool.store.commit()
    assert spool.names("claimed/0") == []


def test_shard_that_died_of_one_file_and_lived_after_it_forgets(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_octets: bytes) -> Any:
        raise Bug

    with monkeypatch.context() as patch:
        patch.setattr(flight_module, "parse_pickup", stumble)
        with pytest.raises(Bug):
            spool.take()
    spool.crash()
    spool.begin()
    spool.take_waiting()
    spool.crash()
    spool.begin()
    spool.take_waiting()
    spool.store.commit()
    assert len(spool.store.bodies) == 1
    assert spool.names("failed") == []


# -- names that come again --------------------------------------------------------------------------------


def test_name_that_came_again_while_held_is_told_when_it_is_free(spool: Spool) -> None:
    spool.take()
    spool.put()
    spool.flight.note_reuse("m")
    assert spool.reused == []
    spool.store.commit()
    assert spool.reused == ["m"]


def test_other_file_that_looks_the_same_waits_until_the_claim_is_forgotten(
    spool: Spool, run: Callable[..., Any]
) -> None:
    spool.put()
    os.link(spool.path / "new" / "m", spool.path / "tmp" / "twin")
    spool.directory.claim("m")
    spool.flight.take("m")
    spool.store.commit()
    (spool.path / "tmp" / "twin").rename(spool.path / "new" / "m")
    spool.directory.claim("m")
    spool.flight.take("m")
    assert spool.names("new") == ["m"]
    assert len(spool.door.taken) == 1
    spool.forget(run)
    spool.directory.claim("m")
    spool.flight.take("m")
    assert len(spool.door.taken) == 2


# -- what can't be sent -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "the file is empty"),
        (b"Subject: x\n\nbody\n", "no recipients: neither X-Receiver nor To, Cc or Bcc names one"),
        (MAIL + b"mixed\r\n", "mixed line ends: expected either LF or CRLF throughout"),
        (MAIL.replace(b"b@x", b"b x"), "X-Receiver: "),
        (MAIL + b"x" * 1000 + b"\n", "a line longer than 998 octets"),
        (MAIL + b"x\0\n", "a NUL octet"),
        (MAIL + b"x\n" * 1000, "larger than 2000 octets"),
        (MAIL + b"x\n" * 200_000, "larger than 68346 octets"),
        (
            MAIL.replace(b"X-Rec", b"X-Receiver: <c@x.example>, d@x.example, e@x.example\nX-Rec"),
            "4 recipients",
        ),
    ],
)
def test_file_that_is_no_message_fails_with_a_reason(spool: Spool, octets: bytes, reason: str) -> None:
    spool.take(octets=octets)
    assert spool.reason().startswith(reason)
    assert spool.names("failed") == ["m", "m.reason"]
    assert (spool.flight.count, spool.flight.held) == (0, set())
    name = "mailrail_injections_total"
    assert spool.counters.counter(name, feed="spool", listener="spool:/s", result="refused") == [1]


def test_refused_message_fails_with_the_reply(spool: Spool) -> None:
    spool.door.refusal = make_reply(550, "5.7.1", "customer acme may not send as <a@acme.example>")
    spool.take()
    assert spool.reason() == "550 5.7.1 customer acme may not send as <a@acme.example>"
    assert spool.names("failed") == ["m", "m.reason"]


def test_file_that_can_not_be_unlinked_is_not_sent_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_name: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(spool.directory, "unlink", refuse)
    spool.take()
    spool.store.commit()
    assert "m" in spool.flight.held
    assert spool.flight.count == 0
    spool.crash()
    spool.begin()
    spool.take_waiting()
    assert len(spool.door.taken) == 1
    assert spool.names("claimed/0") == []


def test_failed_directory_without_room_keeps_the_file_claimed(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_name: str, _reason: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool.directory, "fail", refuse)
    spool.take(octets=b"")
    assert spool.names("claimed/0") == ["m"]
    assert not spool.flight.waiting


def test_file_that_could_not_be_moved_to_failed_is_moved_when_it_can(spool: Spool) -> None:
    (spool.path / "failed").rmdir()
    for name in ("m", "n"):
        spool.take(name, octets=b"")
    spool.flight.fail_again()
    assert spool.names("claimed/0") == ["m", "n"]
    (spool.path / "claimed" / "0" / "n").unlink()
    spool.directory.open()
    spool.flight.fail_again()
    spool.flight.fail_again()
    assert spool.names("failed") == ["m", "m.reason"]
    assert (spool.path / "failed" / "m.reason").read_text() == "the file is empty\n"
    assert not spool.flight.held


# -- what can't be sent now -------------------------------------------------------------------------------


def test_full_store_keeps_the_file_claimed_and_everything_waits(spool: Spool) -> None:
    spool.door.refusal = make_reply(452, "4.3.1", "insufficient storage")
    spool.take()
    assert spool.names("claimed/0") == ["m"]
    assert spool.names("failed") == []
    assert spool.flight.resume_at == FIRST_BACK_OFF_S
    spool.now = spool.flight.resume_at
    spool.door.refusal = None
    spool.take_waiting()
    spool.store.commit()
    assert spool.names("claimed/0") == []


def test_wait_grows_to_a_bound_and_is_short_again_after_a_success(spool: Spool) -> None:
    spool.door.refusal = make_reply(452, "4.3.1", "insufficient storage")
    spool.take()
    waits = []
    for _ in range(6):
        waits.append(spool.flight.resume_at - spool.now)
        spool.now = spool.flight.resume_at
        spool.flight.take(spool.flight.waiting.popleft())
    assert waits == [1.0, 2.0, 4.0, 8.0, MAX_BACK_OFF_S, MAX_BACK_OFF_S]
    spool.door.refusal = None
    spool.now = spool.flight.resume_at
    spool.take_waiting()
    spool.store.commit()
    spool.door.refusal = make_reply(452, "4.3.1", "insufficient storage")
    spool.take()
    assert spool.flight.resume_at - spool.now == FIRST_BACK_OFF_S


def test_commit_that_finds_no_room_is_tried_again(spool: Spool) -> None:
    spool.take()
    spool.store.commit(StoreUnhealthy("no"))
    assert list(spool.flight.waiting) == ["m"]
    assert spool.flight.count == 0


def test_process_without_descriptors_waits(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(spool.directory, "open_claimed", refuse)
    spool.take()
    assert list(spool.flight.waiting) == ["m"]
    assert spool.names("failed") == []


def test_file_that_is_being_written_goes_back(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def changing(file: Any) -> bytes:
        os.close(file.descriptor)
        raise BlockingIOError(11, "the file is being written")

    monkeypatch.setattr(flight_module, "read_file", changing)
    spool.take()
    assert spool.names("new") == ["m"]
    assert (spool.flight.count, spool.flight.held, spool.flight.resume_at) == (0, set(), 0.0)


def test_claimed_file_that_somebody_removed_is_let_go(spool: Spool) -> None:
    spool.put()
    spool.directory.claim("m")
    (spool.path / "claimed" / "0" / "m").unlink()
    spool.flight.take("m")
    assert spool.flight.held == set()


# -- the rest ---------------------------------------------------------------------------------------------


def test_large_file_is_read_in_a_thread(tmp_path: Path, run: Callable[..., Any], until: Any) -> None:
    spool = Spool(tmp_path / "spool", settings={"max_message_size_bytes": 10_000_000})
    large = MAIL + (b"x" * 70 + b"\n") * 30_000

    async def scenario() -> None:
        spool.take(octets=large)
        assert spool.door.taken == []
        assert spool.flight.size_bytes == len(large)
        await until(lambda: bool(spool.door.taken))
        spool.store.commit()
        assert spool.names("claimed/0") == []

    run(scenario())


def test_landing_waits_for_what_is_in_flight_and_gives_back_the_rest(
    spool: Spool, run: Callable[..., Any], until: Any
) -> None:
    spool.door.refusal = make_reply(452, "4.3.1", "insufficient storage")
    spool.take("later")
    spool.door.refusal = None
    spool.take("now")

    async def scenario() -> None:
        landing = asyncio.ensure_future(spool.flight.land(10.0))
        await asyncio.sleep(0)
        assert spool.names("new") == ["later"]
        assert not landing.done()
        spool.store.commit()
        await landing
        spool.store.commit()
        assert spool.store.claims == {}

    run(scenario())


def test_answers_after_the_end_change_nothing(spool: Spool) -> None:
    spool.take()
    spool.flight.close()
    spool.store.commit()
    assert spool.names("claimed/0") == ["m"]


def test_file_names_are_one_line_for_people() -> None:
    assert format_name("ü 1") == "ü 1"
    assert "\n" not in format_name("a\nb")
    format_name("\udcff").encode()
