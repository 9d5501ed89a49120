"""The sending side as a state machine: any legal step of the shell, any reply of the peer, a twin.

A legal step never fails, every transaction gets one outcome in the order of their beginning, and the twin,
which reads octet by octet, knows and writes the same.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.core.errors import RemoteProtocolError
from engine.smtp.client import ClientConversation, Outcome

REPLIES = [
    b"250 2.0.0 Ok\r\n",
    b"250-2.1.5 of\r\n250 2.1.5 two lines\n",
    b"354 go\r\n",
    b"450 4.2.1 later\r\n",
    b"550 5.1.1 no\r\n",
    b"502 5.5.1 what\r\n",
    b"503 5.5.1 nested\r\n",
]
LAST_WORDS = [b"421 4.3.2 bye\r\n", b"nonsense\r\n", b"250 " + b"x" * 3000]


class Sending(RuleBasedStateMachine):
    """`whole` gets each reply at once, `bytewise` by the octet."""

    @initialize(pipelining=st.booleans())
    def connect(self, pipelining: bool) -> None:
        self.open(pipelining)

    def open(self, pipelining: bool) -> None:
        self.is_pipelining = pipelining
        self.whole, self.bytewise = (ClientConversation(pipelining=pipelining) for _ in range(2))
        self.begun = 0
        self.outcomes: list[Outcome] = []
        self.is_over = False

    def may_begin(self) -> bool:
        return not self.is_over and self.whole.may_begin

    @precondition(lambda self: self.is_over)
    @rule(pipelining=st.booleans())
    def open_another(self, pipelining: bool) -> None:
        self.open(pipelining)

    @precondition(may_begin)
    @rule(recipients=st.integers(1, 3), is_chunked=st.booleans())
    def begin(self, recipients: int, is_chunked: bool) -> None:
        names = [f"u{index}@x.example" for index in range(recipients)]
        first, second = (
            conversation.begin(
                "a@acme.example", names, is_chunked=is_chunked and self.is_pipelining, token=self.begun
            )
            for conversation in (self.whole, self.bytewise)
        )
        assert first == second
        assert first.endswith(b"\r\n")
        self.begun += 1

    @precondition(lambda self: not self.is_over and self.whole.may_chunk)
    @rule()
    def chunk(self) -> None:
        assert self.whole.chunk(b"body\r\n") == self.bytewise.chunk(b"body\r\n") == b"BDAT 6 LAST\r\nbody\r\n"

    @precondition(lambda self: not self.is_over and self.whole.wants_content and not self.whole.may_chunk)
    @rule()
    def content(self) -> None:
        assert self.whole.content_token == self.bytewise.content_token
        assert self.whole.content(b"body\r\n.\r\n") == self.bytewise.content(b"body\r\n.\r\n")

    @precondition(lambda self: not self.is_over and self.whole.is_idle and not self.whole.is_closing)
    @rule()
    def quit(self) -> None:
        assert self.whole.quit() == self.bytewise.quit()

    @precondition(lambda self: not self.is_over)
    @rule(reply=st.sampled_from(REPLIES * 4 + LAST_WORDS))
    def peer_says(self, reply: bytes) -> None:
        try:
            written = self.whole.receive(reply)
        except RemoteProtocolError:
            with pytest.raises(RemoteProtocolError):
                _ = [self.bytewise.receive(reply[at : at + 1]) for at in range(len(reply))]
            self.lose()
            return
        assert written == b"".join(self.bytewise.receive(reply[at : at + 1]) for at in range(len(reply)))
        assert written in (b"", b".\r\n") or not self.is_pipelining

    @precondition(lambda self: not self.is_over)
    @rule()
    def lose(self) -> None:
        self.take_outcomes()
        left = self.whole.lost()
        assert left == self.bytewise.lost()
        self.outcomes += left
        self.is_over = True
        assert len(self.outcomes) == self.begun

    @invariant()
    def take_outcomes(self) -> None:
        while (outcome := self.whole.pop_outcome()) is not None:
            assert outcome == self.bytewise.pop_outcome()
            self.outcomes.append(outcome)
        assert self.bytewise.pop_outcome() is None
        assert [outcome.token for outcome in self.outcomes] == list(range(len(self.outcomes)))
        for outcome in self.outcomes:
            assert outcome.is_uncertain + outcome.is_untried + outcome.is_misunderstood <= 1

    @invariant()
    def twins_agree(self) -> None:
        for fact in ("waiting_for", "is_closing", "needs_reset", "wants_content", "may_begin", "in_flight"):
            assert getattr(self.whole, fact) == getattr(self.bytewise, fact), fact
        assert self.whole.in_flight + len(self.outcomes) == self.begun


Sending.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestSending = Sending.TestCase
