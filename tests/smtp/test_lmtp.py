"""LMTP: one reply for each recipient behind the message (RFC 2033); the dialogues tell the ordinary cases."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.smtp.client import Outcome
from engine.smtp.lmtp import LmtpConversation

FROM = "a@acme.example"
OK = b"250 2.1.5 Ok\r\n"
GO = b"354 go\r\n"


def sent(rcpt: list[bytes], *, is_chunked: bool = False) -> LmtpConversation:
    """Return a conversation whose message has gone out, RCPTs answered so."""
    conversation = LmtpConversation(pipelining=True)
    conversation.begin(FROM, [f"u{n}@x.example" for n in range(len(rcpt))], is_chunked=is_chunked, token=1)
    if is_chunked:
        conversation.chunk(b"hello\r\n")
        conversation.receive(OK + b"".join(rcpt))
    else:
        conversation.receive(OK + b"".join(rcpt) + GO)
        conversation.content(b"hello\r\n.\r\n")
    return conversation


def codes(outcome: Outcome | None, recipients: int) -> list[int]:
    assert outcome is not None
    replies = [outcome.reply_for(index) for index in range(recipients)]
    return [reply.code if reply is not None else 0 for reply in replies]


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([250, 251, 421, 450, 452, 550, 552])), min_size=1),
    st.booleans(),
)
def test_each_recipient_gets_its_own_reply(recipients: list[tuple[bool, int]], is_chunked: bool) -> None:
    """RFC 2033 sections 4.2 and 4.3, over any mixture, DATA and BDAT; 421 ends it for those behind."""
    if not any(stands for stands, _ in recipients):
        recipients = [*recipients, (True, 250)]
    conversation = sent([OK if ok else b"551 no\r\n" for ok, _ in recipients], is_chunked=is_chunked)
    expected, is_cut = [], False
    for stands, code in recipients:
        if not stands:
            expected.append(551)
            continue
        if not is_cut:
            assert conversation.pop_outcome() is None
            conversation.receive(b"%d for you\r\n" % code)
        is_cut = is_cut or code == 421
        expected.append(421 if is_cut else code)
    assert codes(conversation.pop_outcome(), len(recipients)) == expected
    assert conversation.is_closing == is_cut
    assert conversation.is_idle


def test_552_behind_the_message_is_not_taken_for_a_reply_to_rcpt() -> None:
    """RFC 5321 section 4.5.3.1.10 speaks of RCPT: there 552 is temporary, here it is not."""
    conversation = sent([OK, OK])
    conversation.receive(b"250 2.1.5 saved\r\n552 5.2.2 full\r\n")
    outcome = conversation.pop_outcome()
    assert outcome is not None
    assert [reply.code for reply in outcome.recipients] == [250, 250]
    assert codes(outcome, 2) == [250, 552]


def test_transaction_counts_as_taken_where_anybody_got_it() -> None:
    conversation = sent([OK, OK])
    conversation.receive(b"450 4.2.1 later\r\n250 2.1.5 saved\r\n")
    outcome = conversation.pop_outcome()
    assert outcome is not None
    assert outcome.final is not None
    assert outcome.final.code == 250


def test_bdat_that_the_peer_does_not_know_is_answered_once() -> None:
    """RFC 2033 section 4.3 with RFC 3030: a 500 to BDAT is not the reply for the first recipient."""
    conversation = sent([OK, OK], is_chunked=True)
    conversation.receive(b"500 5.5.1 what?\r\n")
    outcome = conversation.pop_outcome()
    assert outcome is not None
    assert outcome.is_misunderstood
    assert conversation.is_closing


def test_a_last_recipient_refused_by_50x_is_no_misunderstanding() -> None:
    conversation = sent([OK, OK], is_chunked=True)
    conversation.receive(b"250 2.1.5 saved\r\n501 5.1.3 odd\r\n")
    outcome = conversation.pop_outcome()
    assert outcome is not None
    assert not outcome.is_misunderstood
    assert codes(outcome, 2) == [250, 501]
