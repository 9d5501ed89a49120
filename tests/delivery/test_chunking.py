"""session, where the peer offers CHUNKING: message with envelope, several outstanding, and the guards."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from engine.delivery.session import MAX_UNASKED_BYTES, UNUSED_S
from engine.net.extensions import parse_extensions
from tests.delivery.test_session import DESTINATION, GO, OK, ONE, Around, virtual
from tests.fakes.delivery_rig import MESSAGE, make_delivery, make_policies

CHUNKING = parse_extensions("PIPELINING\nCHUNKING\nSIZE")
ENVELOPE = b"MAIL FROM:<news@acme.example> SIZE=31\r\nRCPT TO:<u0@x.example>\r\n"
BDAT = b"BDAT %d LAST\r\n%b" % (len(MESSAGE), MESSAGE)
WHOLE = ENVELOPE + BDAT
DONE = OK + OK + OK
RSET = b"RSET\r\n"


def around(*ready: object, policy: str = "", faults: tuple[str, ...] = ()) -> Around:
    return Around(*ready, policy=policy, extensions=CHUNKING, faults=faults)  # type: ignore[arg-type]


@virtual
async def test_a_message_takes_one_write_and_one_round_trip() -> None:
    """RFC 3030 section 4.2, RFC 2920 section 3.1."""
    it = around(make_delivery(), make_delivery())
    assert it.transport.take() == WHOLE
    it.transport.say(DONE)
    assert it.transport.take() == WHOLE
    it.transport.say(DONE)
    assert it.finals() == [250, 250]


@virtual
async def test_one_is_outstanding_unless_policy_says_more() -> None:
    it = around(*[make_delivery() for _ in range(3)])
    it.transport.say(DONE)
    assert it.transport.take() == WHOLE * 2


@virtual
async def test_more_are_outstanding_only_after_a_success() -> None:
    it = around(*[make_delivery() for _ in range(9)], policy="[default]\noutstanding = 3")
    assert it.transport.take() == WHOLE
    it.transport.say(DONE)
    assert it.transport.take() == WHOLE + (RSET + WHOLE) * 2
    it.transport.say(DONE)
    assert it.transport.take() == RSET + WHOLE


@pytest.mark.parametrize(
    "refusal", [b"450 4.7.1 no\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n", OK + OK + b"550 5.7.1 no\r\n"]
)
@virtual
async def test_a_refusal_brings_it_back_to_one(refusal: bytes) -> None:
    it = around(*[make_delivery() for _ in range(9)], policy="[default]\noutstanding = 3")
    it.transport.say(DONE)
    it.transport.take()
    it.transport.say(refusal)
    assert it.transport.take() == b""
    it.transport.say(OK + DONE)
    assert len(it.settled) == 3


@virtual
async def test_a_policy_that_is_lowered_holds_for_sessions_that_are_never_idle() -> None:
    it = around(*[make_delivery() for _ in range(9)], policy="[default]\noutstanding = 3")
    it.transport.say(DONE)
    it.transport.take()
    it.path.set_policy(make_policies("[default]\noutstanding = 1").effective(DESTINATION))
    it.transport.say(DONE + OK + DONE)
    assert it.transport.take() == b""
    it.transport.say(OK + DONE)
    assert it.transport.take() == WHOLE


@virtual
async def test_a_refused_recipient_is_no_reason_to_go_slower() -> None:
    it = around(*[make_delivery() for _ in range(9)], policy="[default]\noutstanding = 3")
    it.transport.say(DONE)
    it.transport.take()
    it.transport.say(OK + b"550 5.1.1 no\r\n503 5.5.1 no\r\n")
    assert it.transport.take().count(b"MAIL") == 1


@virtual
async def test_a_large_message_waits_for_the_replies_to_its_recipients() -> None:
    """RFC 3030 section 2."""
    large = make_delivery()
    large.message = b"x" * MAX_UNASKED_BYTES + b"\r\n"
    it = around(large)
    assert it.transport.take().endswith(b"RCPT TO:<u0@x.example>\r\n")
    it.transport.say(OK + OK)
    assert it.transport.take().startswith(b"BDAT 256002 LAST\r\nxxx")
    it.transport.say(OK)
    assert it.finals() == [250]


@virtual
async def test_a_session_that_was_idle_is_asked_before_it_gets_a_message() -> None:
    it = around()
    await it.wait(2 * UNUSED_S)
    it.ready.append(make_delivery())
    it.session.wake()
    assert it.transport.take() == ENVELOPE
    it.transport.say(OK + OK)
    assert it.transport.take() == BDAT


@virtual
async def test_a_message_waits_for_its_permit_behind_its_envelope() -> None:
    it = around(*[make_delivery() for _ in range(3)], policy='[default]\nmax_message_rate = "10/s"')
    it.transport.take()
    it.transport.say(DONE)
    if not (written := it.transport.take()):
        await asyncio.sleep(0.1)
        it.session.wake()
        written = it.transport.take()
    assert written in (WHOLE, ENVELOPE)
    await asyncio.sleep(0.2)
    assert (written + it.transport.take()).startswith(WHOLE)


@virtual
async def test_a_permit_that_waits_is_given_up_with_its_transaction() -> None:
    it = around(make_delivery(), make_delivery(), policy='[default]\nmessage_interval = "1s"')
    it.transport.take()
    it.transport.say(DONE)
    await asyncio.sleep(0.95)
    it.session.wake()
    if it.transport.take() == ENVELOPE:
        it.transport.say(OK + b"550 5.1.1 no\r\n")
        assert it.settled[-1][1].recipients[0].code == 550
        await asyncio.sleep(1.0)
        assert b"BDAT" not in it.transport.take()


@virtual
async def test_a_peer_that_does_not_know_bdat_is_left_and_remembered() -> None:
    """RFC 3030 section 2, RFC 5321 section 4.2.4."""
    it = around(make_delivery())
    it.transport.say(OK + OK + b"502 5.5.1 not implemented\r\n")
    assert len(it.returned) == 1
    assert not it.settled
    assert it.faults == ["chunking"]
    assert it.transport.is_aborted


@virtual
async def test_a_peer_that_loses_step_is_remembered() -> None:
    it = around(make_delivery())
    it.transport.say(OK + OK + OK + OK)
    assert it.faults == ["chunking"]


@virtual
async def test_a_peer_known_not_to_do_it_gets_data() -> None:
    """RFC 3030 section 2."""
    it = around(make_delivery(), faults=("chunking",))
    assert it.transport.take() == ONE
    it.transport.say(GO)
    assert it.transport.take().endswith(b"\r\n.\r\n")


@virtual
async def test_a_peer_known_to_lose_step_gets_one_command_at_a_time() -> None:
    """RFC 2920 section 3.1."""
    it = around(make_delivery(), faults=("pipelining",))
    assert it.transport.take() == b"MAIL FROM:<news@acme.example> SIZE=31\r\n"


@virtual
async def test_lost_chunks_are_uncertain() -> None:
    """RFC 1047, RFC 3030 section 4.2."""
    it = around(*[make_delivery() for _ in range(4)], policy="[default]\noutstanding = 3")
    it.transport.say(DONE)
    it.transport.lose()
    assert [outcome.is_uncertain for _, outcome in it.settled] == [False, True, True, True]


def test_chunking_without_pipelining_is_not_used() -> None:
    """RFC 3030 section 2."""
    alone = msgspec.structs.replace(CHUNKING, has_pipelining=False)

    async def main() -> None:
        it = Around(make_delivery(), extensions=alone)
        assert it.transport.take() == b"MAIL FROM:<news@acme.example> SIZE=31\r\n"

    from tests.fakes.virtual_loop import run_virtually

    run_virtually(main())
