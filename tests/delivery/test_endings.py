"""endings: once a hold is in force nothing more is written on the path, whatever is in flight there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.envelope import Delivery
from engine.core.reply import Reply
from engine.delivery.hearing import Whence
from engine.delivery.session import Session
from engine.policy.on_reply import ReplyRule
from engine.queue.path import Path
from tests.delivery.test_chunking import CHUNKING
from tests.delivery.test_session import CONTENT, DESTINATION, GO, NO_EXTENSIONS, OK, ONE, Around, virtual
from tests.fakes.delivery_rig import PIPELINING, make_delivery

LATER = b"451 4.7.1 stop here\r\n"


class Listener:
    """Holds the path at the first refusal, as a rule would."""

    def __init__(self, around: Holding) -> None:
        self._around = around
        self.heard_of: list[tuple[int, str, str]] = []
        self.successes: list[Path] = []

    def heard(self, reply: Reply, whence: Whence) -> ReplyRule | None:
        self.heard_of.append((reply.code, whence.phase, whence.customer))
        self._around.hold()
        return None

    def succeeded(self, path: Path) -> None:
        self.successes.append(path)


class Holding(Around):
    """A session whose path is held by what its peer, or another's, says."""

    def __init__(self, *ready: Delivery, **options: Any) -> None:
        options.setdefault("extensions", PIPELINING)
        super().__init__(*ready, **options)
        self.hearer: Listener = Listener(self)
        self.site_queue = SimpleNamespace(destination=DESTINATION)

    def hold(self) -> None:
        self.path.hold("rule x", "rule x", self.session.now + 600.0)

    def take(self, session: Session) -> Delivery | None:
        if self.path.hold_in_force(session.now) is not None:
            return None
        return super().take(session)

    def begin(self) -> None:
        """Take what was made ready since, with the queue that hears have."""
        self.session.wake()


def holding(count: int, **options: Any) -> Holding:
    it = Holding(**options)
    it.ready += [make_delivery() for _ in range(count)]
    it.begin()
    return it


@virtual
async def test_the_envelope_behind_the_dot_gets_no_content() -> None:
    it = holding(3)
    it.transport.say(GO)
    assert it.transport.take() == ONE + CONTENT + ONE
    it.transport.say(LATER)
    assert it.hearer.heard_of == [(451, "data", "acme")]
    it.transport.say(GO)
    assert (it.transport.take(), it.transport.is_aborted) == (b"", True)
    assert (it.finals(), len(it.returned), len(it.ready)) == ([451], 1, 1)


@virtual
async def test_what_was_refused_and_what_follows_in_one_read_is_cut_as_well() -> None:
    it = holding(3)
    it.transport.say(GO)
    it.transport.take()
    it.transport.say(LATER + GO)
    assert (it.transport.take(), it.transport.is_aborted, len(it.returned)) == (b"", True, 1)


@virtual
async def test_messages_that_are_on_their_way_are_waited_for() -> None:
    it = holding(9, extensions=CHUNKING, policy="[default]\noutstanding = 3")
    it.transport.say(OK + OK + OK)
    assert it.transport.take().count(b"MAIL") == 4
    it.transport.say(OK + OK + LATER)
    it.transport.say(OK + OK + OK + OK)
    assert it.transport.take() == b""
    it.transport.say(OK + OK + OK + OK)
    assert it.finals() == [250, 451, 250, 250]
    assert (it.transport.take(), it.transport.is_aborted, it.returned) == (b"", False, [])


@virtual
async def test_a_chunk_that_waits_for_its_permit_is_never_written() -> None:
    it = holding(2, extensions=CHUNKING, policy='[default]\nmax_message_rate = "1/10s"')
    await it.wait(9.0)
    it.transport.take()
    it.hold()
    await it.wait(30.0)
    assert it.transport.take() == b""
    assert it.settled == []


@virtual
async def test_content_that_waits_for_its_permit_is_never_written() -> None:
    it = holding(1, policy='[default]\nmax_message_rate = "2/10s"')
    assert it.transport.take() == ONE
    it.path.redeem_message(it.session.now, it.path.reserve_message(it.session.now))
    it.transport.say(GO)
    assert it.transport.take() == b""
    it.hold()
    await it.wait(30.0)
    assert (it.transport.take(), it.transport.is_aborted, len(it.returned)) == (b"", True, 1)


@pytest.mark.parametrize("answered", [1, 2])
@virtual
async def test_a_peer_that_takes_one_command_at_a_time_gets_no_further_one(answered: int) -> None:
    it = holding(1, extensions=NO_EXTENSIONS)
    for _ in range(answered - 1):
        it.transport.say(OK)
    it.transport.take()
    it.hold()
    it.transport.say(OK)
    assert (it.transport.take(), it.transport.is_aborted, len(it.returned)) == (b"", True, 1)


@virtual
async def test_recipients_that_were_answered_are_settled_and_the_rest_was_not_tried() -> None:
    it = Holding()
    it.ready.append(make_delivery(recipients=3))
    it.begin()
    it.transport.say(OK + OK + LATER + OK + b"354 go\r\n")
    ((_, outcome),) = it.settled
    assert outcome.is_cut
    assert [outcome.reply_for(index) is not None for index in range(3)] == [False, True, False]
    assert it.transport.is_aborted
    assert it.returned == []


@virtual
async def test_a_held_customers_content_is_cut_and_anothers_goes_on() -> None:
    for customer, is_cut in (("acme", True), ("beta", False)):
        it = holding(1)
        it.transport.take()
        it.path.hold_customer(customer, "rule x", it.session.now + 600.0)
        it.transport.say(GO)
        assert it.transport.is_aborted is is_cut
        assert (it.transport.take() == CONTENT) is not is_cut


@virtual
async def test_a_success_is_told_of_where_the_path_heeds_it() -> None:
    it = holding(2)
    it.transport.say(GO)
    it.transport.say(OK + GO)
    assert it.hearer.successes == []
    it.path.heeds_successes = True
    it.transport.say(OK)
    assert it.hearer.successes == [it.path]


@virtual
async def test_what_answers_no_command_is_not_heard() -> None:
    it = holding(0)
    it.transport.say(b"421 4.4.2 idle for too long\r\n")
    assert it.hearer.heard_of == []
