"""session: one open SMTP session, spoken to by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import msgspec
import pytest

from engine.core.envelope import Delivery
from engine.core.terms import Terms
from engine.delivery.flight import Flight
from engine.delivery.hearing import Deaf
from engine.delivery.line import session_timeouts
from engine.delivery.session import SLOT_AFTER_OUR_CLOSE_S, WAIT_FOR_EOF_S, Session
from engine.net.extensions import NO_EXTENSIONS, Extensions, parse_extensions
from engine.policy.model import Destination
from engine.queue.path import Path, PathLimits, SiteDemand
from engine.smtp.client import Outcome
from tests.fakes.delivery_rig import MESSAGE, PIPELINING, make_delivery, make_policies, make_session
from tests.fakes.virtual_loop import START, run_virtually
from tests.fakes.wire import ManualTransport

DESTINATION = Destination("x", "site", "", "")
ONE = b"MAIL FROM:<news@acme.example> SIZE=31\r\nRCPT TO:<u0@x.example>\r\nDATA\r\n"
CONTENT = MESSAGE + b".\r\n"
OK = b"250 2.0.0 ok\r\n"
GO = OK + OK + b"354 go\r\n"


class NoStep:
    def begin(self, delivery_key: bytes) -> None: ...
    def end(self) -> None: ...


class Around:
    """What a session talks to, all of it noting what it hears."""

    def __init__(
        self,
        *ready: Delivery,
        policy: str = "",
        extensions: Extensions = PIPELINING,
        faults: tuple[str, ...] = (),
    ) -> None:
        self.policies = make_policies(policy)
        self.ready = list(ready)
        self.dispatcher: Any = self
        self.paths: Any = self
        self.step = NoStep()
        self.hearer: Any = Deaf()
        self.told: list[str] = []
        self.settled: list[tuple[Flight, Outcome]] = []
        self.returned: list[Delivery] = []
        self.slot_at = -1.0
        self.on_take: Callable[[Session], None] = lambda session: None
        effective = self.policies.effective(DESTINATION)
        self.path = Path("v1", "x", "", effective, PathLimits(-1e6), ())
        self.demand = SiteDemand("mx", lambda: 0)
        self.site_queue: Any = object()
        self.faults: list[str] = []
        self.session = make_session(
            self, self.path, self.demand, [self.site_queue], extensions=extensions, faults=faults
        )
        self.transport = ManualTransport()
        self.transport.connect(self.session)

    def policy_of(self, path: Path) -> Any:
        return path.policy

    # -- dispatcher
    def take(self, session: Session) -> Delivery | None:
        self.on_take(session)
        if not self.ready or self.path.message_ready_at(session.now) > session.now:
            return None
        session.reserved_at = self.path.reserve_message(session.now)
        session.taken_from = self.site_queue
        return self.ready.pop(0)

    def opened(self, session: Session) -> None:
        self.told.append("opened")

    def closed(self, session: Session) -> None:
        self.told.append("closed")

    def idle(self, session: Session) -> None:
        self.told.append("idle")

    def busy(self, session: Session) -> None:
        self.told.append("busy")

    # -- settler
    def settle(self, flight: Flight, outcome: Outcome, session: Session) -> None:
        assert flight.site_queue is self.site_queue
        self.settled.append((flight, outcome))

    def put_back(self, flight: Flight) -> None:
        self.returned.append(flight.delivery)

    def on_fault(self, session: Session, fault: str) -> None:
        self.faults.append(fault)

    def gone(self, session: Session, slot_at: float) -> None:
        self.slot_at = slot_at

    # -- what tests ask
    def finals(self) -> list[int]:
        return [outcome.final.code if outcome.final else 0 for _, outcome in self.settled]

    async def wait(self, seconds: float) -> None:
        """Let time pass with a sweep at each quarter of a second."""
        end = self.session.now + seconds
        while self.session.now < end:
            await asyncio.sleep(min(0.25, end - self.session.now))
            self.session.sweep(self.session.now)


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a loop whose clock jumps."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtually(test(*args, **kwargs))

    return run


# -- transactions -----------------------------------------------------------------------------------


@virtual
async def test_envelope_goes_in_one_write_and_content_after_354() -> None:
    around = Around(make_delivery())
    assert around.transport.take() == ONE
    around.transport.say(GO)
    assert around.transport.take() == CONTENT
    around.transport.say(OK)
    assert around.finals() == [250]
    assert around.told == ["opened", "idle"]


@virtual
async def test_next_envelope_goes_behind_the_dot() -> None:
    """RFC 2920 section 3.1."""
    around = Around(make_delivery(), make_delivery())
    around.transport.take()
    around.transport.say(GO)
    assert around.transport.take() == CONTENT + ONE
    around.transport.say(OK + GO)
    assert around.transport.take() == CONTENT
    around.transport.say(OK)
    assert around.finals() == [250, 250]


@virtual
async def test_a_peer_without_pipelining_gets_one_command_at_a_time() -> None:
    """RFC 2920 section 3.1."""
    around = Around(make_delivery(), make_delivery(), extensions=NO_EXTENSIONS)
    commands = []
    for reply in (OK, OK, b"354 go\r\n", OK):
        commands.append(around.transport.take())
        around.transport.say(reply)
    assert commands == [
        b"MAIL FROM:<news@acme.example>\r\n",
        b"RCPT TO:<u0@x.example>\r\n",
        b"DATA\r\n",
        CONTENT,
    ]
    assert around.finals() == [250]
    assert around.transport.take() == b"MAIL FROM:<news@acme.example>\r\n"


@virtual
async def test_an_idle_session_that_is_woken_takes_what_is_ready() -> None:
    around = Around()
    around.ready.append(make_delivery())
    around.session.wake()
    assert around.transport.take() == ONE
    assert around.told == ["opened", "idle", "busy"]
    around.ready.append(make_delivery())
    around.session.wake()
    assert around.transport.take() == b""


@virtual
async def test_replies_in_pieces_are_the_same_as_whole() -> None:
    around = Around(make_delivery())
    for octet in GO:
        around.transport.say(bytes([octet]))
    assert around.transport.take() == ONE + CONTENT


@virtual
async def test_refused_mail_hits_only_its_message() -> None:
    """RFC 5321 section 3.3."""
    around = Around(make_delivery(), make_delivery())
    around.transport.take()
    around.transport.say(b"550 5.7.1 no\r\n503 no\r\n503 no\r\n")
    assert [outcome.mail.code for _, outcome in around.settled if outcome.mail] == [550]
    assert around.transport.take() == ONE


@virtual
async def test_all_recipients_refused_and_354_gets_a_lone_dot() -> None:
    around = Around(make_delivery())
    around.transport.take()
    around.transport.say(OK + b"550 5.1.1 who\r\n354 go\r\n")
    assert around.transport.take() == b".\r\n"
    around.transport.say(b"554 no valid recipients\r\n")
    assert [outcome.reply_for(0).code for _, outcome in around.settled] == [550]  # type: ignore[union-attr]


@virtual
async def test_more_recipients_than_allowed_go_in_parts() -> None:
    """RFC 5321 section 4.5.3.1.8."""
    policy = "[default]\nmax_recipients_per_message = 2"
    around = Around(make_delivery(recipients=5), policy=policy)
    assert around.transport.take().count(b"RCPT TO") == 2
    around.transport.say(OK + GO)
    around.transport.take()
    around.transport.say(OK)
    assert around.settled[0][0].recipients == ["u0@x.example", "u1@x.example"]


@virtual
async def test_recipients_deferred_in_this_attempt_are_not_tried_again() -> None:
    delivery = make_delivery(recipients=3)
    delivery.deferred = 2
    around = Around(delivery)
    assert around.transport.take() == ONE
    assert around.session is not None


# -- 421, in each place -----------------------------------------------------------------------------


@virtual
async def test_421_to_mail_defers_that_message_and_ends_the_session() -> None:
    around = Around(make_delivery())
    around.transport.say(b"421 4.7.0 busy\r\n")
    assert [outcome.mail.code for _, outcome in around.settled if outcome.mail] == [421]
    around.ready.append(make_delivery())
    around.session.wake()
    assert len(around.ready) == 1


@virtual
async def test_421_to_a_recipient_leaves_the_answers_before_it() -> None:
    around = Around(make_delivery(recipients=3))
    around.transport.say(OK + OK + b"550 5.1.1 who\r\n421 4.7.0 enough\r\n")
    ((_, outcome),) = around.settled
    codes = [outcome.reply_for(index).code for index in range(3)]  # type: ignore[union-attr]
    assert codes == [421, 550, 421]


@virtual
async def test_421_to_content_leaves_the_next_message_untried() -> None:
    first, second = make_delivery(), make_delivery()
    around = Around(first, second)
    around.transport.say(GO)
    around.transport.say(b"421 4.3.2 closing\r\n")
    assert [flight.delivery for flight, _ in around.settled] == [first]
    assert around.finals() == [421]
    assert around.returned == [second]


@virtual
async def test_421_behind_an_accepted_message_is_the_next_ones() -> None:
    first, second = make_delivery(), make_delivery()
    around = Around(first, second)
    around.transport.say(GO)
    around.transport.say(OK + b"421 4.7.0 enough\r\n")
    assert [flight.delivery for flight, _ in around.settled] == [first, second]
    assert around.finals()[0] == 250
    assert not around.returned


@virtual
async def test_421_while_idle_touches_nothing() -> None:
    around = Around()
    around.transport.say(b"421 4.4.2 idle for too long\r\n")
    assert not around.settled
    around.transport.end()
    assert around.slot_at == START


@virtual
async def test_421_while_the_rate_makes_content_wait_is_that_messages() -> None:
    around = Around(make_delivery(), make_delivery(), policy='[default]\nmax_message_rate = "1/10s"')
    around.transport.say(GO)
    around.transport.say(OK)
    around.transport.take()
    await asyncio.sleep(9.0)
    around.session.wake()
    await asyncio.sleep(1.5)
    assert not around.settled[1:]
    around.session.wake()
    around.transport.say(b"421 4.3.2 closing\r\n")
    await asyncio.sleep(30.0)
    assert MESSAGE not in around.transport.take()


# -- lost -------------------------------------------------------------------------------------------


@virtual
async def test_lost_before_any_reply_is_an_attempt() -> None:
    around = Around(make_delivery())
    around.transport.lose(ConnectionResetError("reset"))
    ((_, outcome),) = around.settled
    assert outcome.final is not None
    assert str(outcome.final) == "451 4.4.2 connection lost: reset"
    assert not outcome.is_uncertain


@virtual
async def test_lost_after_the_dot_is_uncertain_and_temporary() -> None:
    """RFC 1047."""
    around = Around(make_delivery())
    around.transport.say(GO)
    around.transport.lose()
    ((_, outcome),) = around.settled
    assert outcome.is_uncertain
    assert outcome.final is not None
    assert outcome.final.is_temporary


@pytest.mark.parametrize("has_failed", [False, True])
def test_lost_while_the_end_of_the_message_is_still_here_is_certain(has_failed: bool) -> None:
    """RFC 1047; a transport that has failed has dropped what it had, but it had us pause."""

    @virtual
    async def scenario() -> None:
        around = Around(make_delivery())
        around.transport.say(GO)
        around.transport.unsent_bytes = 100_000
        assert around.transport.protocol is not None
        around.transport.protocol.pause_writing()
        if has_failed:
            around.transport.unsent_bytes = 0
        around.transport.lose(ConnectionResetError())
        ((_, outcome),) = around.settled
        assert not outcome.is_uncertain
        assert outcome.final is not None
        assert outcome.final.is_temporary

    scenario()


@virtual
async def test_lost_after_the_dot_leaves_the_message_behind_it_untried() -> None:
    first, second = make_delivery(), make_delivery()
    around = Around(first, second)
    around.transport.say(GO)
    around.transport.lose()
    assert [flight.delivery for flight, _ in around.settled] == [first]
    assert around.returned == [second]


@virtual
async def test_a_session_that_carried_mail_and_was_closed_while_idle_costs_no_attempt() -> None:
    around = Around(make_delivery())
    around.transport.say(GO)
    around.transport.say(OK)
    late = make_delivery()
    around.ready.append(late)
    around.session.wake()
    around.transport.lose()
    assert around.returned == [late]
    assert around.finals() == [250]


@virtual
async def test_a_session_that_was_idle_since_it_opened_costs_no_attempt_either() -> None:
    around = Around()
    await asyncio.sleep(5.0)
    late = make_delivery()
    around.ready.append(late)
    around.session.wake()
    around.transport.lose()
    assert around.returned == [late]
    assert not around.settled


@virtual
async def test_an_untried_message_gives_its_place_in_the_rate_back() -> None:
    around = Around(make_delivery(), make_delivery(), policy='[default]\nmax_message_rate = "2/s"\nburst = 2')
    around.transport.say(GO)
    around.transport.lose()
    assert len(around.returned) == 1
    assert around.path.message_ready_at(START + 0.6) <= START + 0.6


@virtual
async def test_nothing_is_begun_behind_the_peers_eof() -> None:
    around = Around()
    around.ready.append(make_delivery())
    around.session.eof_received()
    around.session.wake()
    assert len(around.ready) == 1
    assert around.told == ["opened", "idle", "busy"]


@virtual
async def test_nonsense_ends_the_session_and_what_was_known_stands() -> None:
    around = Around(make_delivery(), make_delivery())
    around.transport.say(GO)
    around.transport.say(OK + OK + b"nonsense\r\n")
    assert around.finals() == [250, 451]
    assert "protocol error" in str(around.settled[1][1].final)
    assert around.transport.is_aborted


# -- timers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(b"", 300), (OK, 300), (OK + OK, 120), (GO, 600)],
    ids=["mail", "rcpt", "data", "final"],
)
@virtual
async def test_each_command_has_its_time(said: bytes, seconds: float) -> None:
    """RFC 5321 sections 4.5.3.2.2, 4.5.3.2.3, 4.5.3.2.4 and 4.5.3.2.6."""
    around = Around(make_delivery())
    if said:
        around.transport.say(said)
    await around.wait(seconds - 1.0)
    assert not around.settled
    await around.wait(2.0)
    ((_, outcome),) = around.settled
    assert outcome.final is not None
    assert outcome.final.code == 451
    assert outcome.is_uncertain == (said == GO)
    if not outcome.is_uncertain:
        assert "timed out waiting for" in outcome.final.text


@virtual
async def test_a_peer_that_drips_octets_gains_no_time() -> None:
    """RFC 5321 section 4.5.3.2."""
    around = Around(make_delivery())
    for _ in range(11):
        await around.wait(30.0)
        if not around.transport.is_closing():
            around.transport.say(b"2")
    assert around.settled


@virtual
async def test_content_that_moves_may_take_long_and_content_that_stands_may_not() -> None:
    """RFC 5321 section 4.5.3.2.5."""
    around = Around(make_delivery())
    around.transport.say(GO)
    around.transport.unsent_bytes = 1000
    around.session.pause_writing()
    for _ in range(5):
        around.transport.unsent_bytes -= 100
        await around.wait(170.0)
    assert not around.settled
    await around.wait(361.0)
    assert not around.settled[0][1].is_uncertain  # its end has never left


@virtual
async def test_once_content_is_out_the_peer_has_its_time_to_answer() -> None:
    """RFC 5321 section 4.5.3.2.6."""
    around = Around(make_delivery())
    around.transport.say(GO)
    around.transport.unsent_bytes = 1000
    around.session.pause_writing()
    await around.wait(100.0)
    around.session.resume_writing()
    await around.wait(599.0)
    assert not around.settled
    await around.wait(2.0)
    assert around.settled


@virtual
async def test_an_idle_session_says_quit_and_frees_its_slot_at_the_peers_eof() -> None:
    """RFC 5321 section 4.1.1.10."""
    around = Around()
    await around.wait(29.0)
    assert around.transport.take() == b""
    await around.wait(1.5)
    assert around.transport.take() == b"QUIT\r\n"
    around.transport.say(b"221 bye\r\n")
    around.transport.end()
    assert around.slot_at == around.session.now


@virtual
async def test_a_peer_that_does_not_close_after_quit_is_cut_off_and_its_slot_rests() -> None:
    around = Around()
    around.session.quit()
    around.transport.say(b"221 bye\r\n")
    await around.wait(WAIT_FOR_EOF_S + 0.5)
    assert around.transport.is_aborted
    assert around.slot_at == pytest.approx(around.session.now + SLOT_AFTER_OUR_CLOSE_S, abs=0.5)


@virtual
async def test_a_peer_that_goes_on_talking_after_421_is_cut_off_all_the_same() -> None:
    around = Around()
    around.transport.say(b"421 bye\r\n")
    for _ in range(10):
        await around.wait(0.5)
        if not around.transport.is_closing():
            around.transport.say(b"250 more\r\n")
    assert around.transport.is_aborted


@virtual
async def test_a_peer_that_does_not_answer_quit_is_cut_off() -> None:
    around = Around()
    around.session.quit()
    await around.wait(10.5)
    assert around.transport.is_aborted


def test_every_wait_has_a_timer_of_policy() -> None:
    """RFC 5321 section 4.5.3.2."""
    timeouts = session_timeouts(make_policies().effective(DESTINATION))
    assert set(timeouts) == {"rset", "mail", "rcpt", "data", "final", "quit", None}
    assert min(timeouts.values()) > 0


# -- slots ------------------------------------------------------------------------------------------


@virtual
async def test_a_reset_frees_the_slot_at_once_and_an_error_of_ours_does_not() -> None:
    around = Around()
    around.transport.lose(ConnectionResetError("reset"))
    assert around.slot_at == START
    another = Around()
    another.transport.lose(TimeoutError("no acknowledgment"))
    assert another.slot_at == START + SLOT_AFTER_OUR_CLOSE_S


@virtual
async def test_our_own_close_lets_the_slot_rest() -> None:
    around = Around()
    around.session.abort()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert around.slot_at == START + SLOT_AFTER_OUR_CLOSE_S


# -- ends -------------------------------------------------------------------------------------------


@virtual
async def test_a_session_ends_at_max_messages_per_connection() -> None:
    policy = "[default]\nmax_messages_per_connection = 2"
    around = Around(*[make_delivery() for _ in range(3)], policy=policy)
    around.transport.say(GO)
    assert around.transport.take().count(b"MAIL") == 2
    around.transport.say(OK + GO)
    assert around.transport.take() == CONTENT
    around.transport.say(OK)
    assert around.transport.take() == b"QUIT\r\n"
    assert len(around.ready) == 1


@virtual
async def test_quit_waits_for_what_is_in_flight() -> None:
    """RFC 5321 section 4.1.1.10."""
    around = Around(make_delivery(), make_delivery())
    around.transport.take()
    around.session.quit()
    around.session.quit()
    assert around.transport.take() == b""
    around.transport.say(GO)
    assert around.transport.take() == CONTENT
    around.transport.say(OK)
    assert around.transport.take() == b"QUIT\r\n"
    assert len(around.ready) == 1


@virtual
async def test_a_dispatcher_that_says_quit_while_asked_is_obeyed() -> None:
    around = Around()
    around.on_take = lambda session: session.quit()
    around.session.wake()
    assert around.transport.take() == b"QUIT\r\n"


# -- rates ------------------------------------------------------------------------------------------


@virtual
async def test_content_waits_for_its_permit() -> None:
    around = Around(make_delivery(), make_delivery(), policy='[default]\nmessage_interval = "10s"')
    around.transport.say(GO)
    around.transport.say(OK)
    around.transport.take()
    at = around.path.message_ready_at(around.session.now)
    await asyncio.sleep(at - around.session.now)
    around.session.wake()
    around.transport.say(GO)
    await asyncio.sleep(11.0)
    assert around.transport.take() == ONE + CONTENT
    begun = around.settled[0][0].begun_at
    around.transport.say(OK)
    assert around.settled[1][0].begun_at >= begun + 9.9


@virtual
async def test_a_refused_transaction_counts_in_the_rate() -> None:
    around = Around(make_delivery(), policy='[default]\nmax_message_rate = "1/10s"')
    around.transport.say(b"550 5.7.1 no\r\n503 no\r\n503 no\r\n")
    assert around.settled
    assert around.path.message_ready_at(START + 1.0) > START + 9.0


@virtual
async def test_a_session_shows_what_it_waits_for() -> None:
    around = Around(make_delivery())
    assert around.session.phase == "mail"
    around.transport.say(GO)
    assert around.session.phase == "final"
    around.transport.say(OK)
    assert "192.0.2.9->mx[192.0.2.1] idle" in repr(around.session)


# -- reload ------------------------------------------------------------------------------------------


@virtual
async def test_an_open_session_goes_by_a_new_policy_from_the_next_transaction_on() -> None:
    around = Around(*[make_delivery() for _ in range(4)])
    around.transport.say(GO)
    assert around.transport.take().count(b"MAIL") == 2
    lowered = "max_messages_per_connection = 3\nmax_recipients_per_message = 1\nmail_timeout = '7s'"
    around.path.set_policy(make_policies(f"[default]\n{lowered}").effective(DESTINATION))
    around.ready[0] = make_delivery(recipients=2)
    around.transport.say(OK + GO)
    assert around.transport.take().count(b"RCPT") == 1
    around.transport.say(OK + GO)
    assert around.transport.take() == CONTENT, "nothing follows: three messages are all"
    around.transport.say(OK)
    assert around.transport.take() == b"QUIT\r\n"


@virtual
async def test_timers_of_a_new_policy_count_from_the_next_transaction_on() -> None:
    around = Around()
    around.path.set_policy(make_policies("[default]\nmail_timeout = '7s'").effective(DESTINATION))
    around.ready.append(make_delivery())
    around.session.wake()
    assert around.session.deadline == around.session.now + 7.0


@virtual
async def test_the_peers_limit_of_recipients_is_learnt_for_the_session() -> None:
    """RFC 5321 section 4.5.3.1.10: what a 452 has shown is not asked again; policy may say less."""
    around = Around(make_delivery(recipients=4), make_delivery(recipients=4))
    around.transport.take()
    many = b"452 4.5.3 too many recipients\r\n"
    around.transport.say(OK + OK + OK + many + many + b"354 go\r\n")
    assert around.transport.take().count(b"RCPT") == 4  # it was on its way
    around.transport.say(OK)
    around.ready.append(make_delivery(recipients=4))
    around.transport.say(OK + OK + OK + many + many + b"354 go\r\n")
    assert around.transport.take().count(b"RCPT") == 2


@virtual
async def test_an_lmtp_session_takes_one_reply_for_each_recipient() -> None:
    """RFC 2033 section 4.2."""
    lmtp = msgspec.structs.replace(PIPELINING, is_lmtp=True)
    around = Around(make_delivery(recipients=2), extensions=lmtp)
    around.transport.take()
    around.transport.say(OK + OK + OK + b"354 go\r\n")
    assert around.transport.take() == CONTENT
    around.transport.say(OK)
    assert not around.settled
    around.transport.say(b"452 4.2.2 full\r\n")
    ((_, outcome),) = around.settled
    assert [outcome.reply_for(index).code for index in range(2)] == [250, 452]  # type: ignore[union-attr]


# -- parameters ---------------------------------------------------------------------------------------


@virtual
async def test_parameters_are_those_that_the_peer_offers() -> None:
    """RFC 3461 5.2.1: NOTIFY and ENVID go on to a peer that offers DSN."""
    terms = Terms(envid="7", notify="NEVER")
    around = Around(make_delivery(terms=terms), extensions=parse_extensions("PIPELINING\nDSN"))
    assert around.transport.take() == (
        b"MAIL FROM:<news@acme.example> ENVID=7\r\nRCPT TO:<u0@x.example> NOTIFY=NEVER\r\nDATA\r\n"
    )


@virtual
async def test_what_the_peer_can_not_take_as_it_is_bounces_unsent_and_the_next_goes() -> None:
    """RFC 6531 3.2: 5.6.7, and no mangled mail."""
    utf8 = make_delivery(terms=Terms(is_utf8=True), sender="\u00fc@acme.example")
    around = Around(utf8, make_delivery(), extensions=parse_extensions("PIPELINING"))
    assert around.transport.take().startswith(b"MAIL FROM:<news@acme.example>\r\n")
    ((flight, outcome),) = around.settled
    assert flight.delivery is utf8
    assert outcome.mail is not None
    assert (outcome.mail.code, outcome.mail.enhanced) == (553, "5.6.7")
