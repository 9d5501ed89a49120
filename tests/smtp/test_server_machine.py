"""The receiving side as a state machine: a client of any whim, a shell that stops, and a twin.

Whatever the order, the conversation that gets whole pieces and the one that gets them octet by octet say the
same and take the same messages, and neither holds more than its bounds.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.core.reply import make_reply
from engine.smtp.reading import MAX_COMMAND_BYTES
from engine.smtp.server import ServerConversation, ServerLimits

LIMITS = ServerLimits(
    "mta1.example.net", max_message_bytes=500, max_recipients=2, max_transactions=5, max_errors=6
)
COMMANDS = [
    b"EHLO client.example",
    b"HELO old.example",
    b"MAIL FROM:<a@acme.example>",
    b"MAIL FROM:<> SIZE=501",
    b"RCPT TO:<b@x.example>",
    b"RCPT TO:<postmaster>",
    b"DATA",
    b"BDAT 4 LAST",
    b"RSET",
    b"NOOP",
    b"STARTTLS",
    b"x" * 600,
    b"GET / HTTP/1.1",
    b"QUIT",
]
LINES = [b"Subject: x", b"", b".", b"..", b"y" * 300, b"bare\rcr", b"bare\nlf", b"MAIL FROM:<s@evil.example>"]


class Receiving(RuleBasedStateMachine):
    """`whole` gets pieces, `bytewise` octets; `waiting` is what was written and not fed yet."""

    @initialize(is_greeted=st.booleans())
    def connect(self, is_greeted: bool) -> None:
        self.whole = ServerConversation(LIMITS)
        self.bytewise = ServerConversation(LIMITS)
        self.waiting = b"EHLO client.example\r\n" if is_greeted else b""
        self.fed_bytes = 0

    @rule(command=st.sampled_from(COMMANDS), end=st.sampled_from([b"\r\n"] * 9 + [b"\n"]))
    def command(self, command: bytes, end: bytes) -> None:
        self.waiting += command + end

    @rule(line=st.sampled_from(LINES), end=st.sampled_from([b"\r\n"] * 5 + [b"\n", b""]))
    def line(self, line: bytes, end: bytes) -> None:
        self.waiting += line + end

    @rule()
    def envelope(self) -> None:
        self.waiting += b"MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\nhello\r\n"

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def feed(self, data: st.DataObject) -> None:
        length = data.draw(st.integers(1, len(self.waiting)))
        piece, self.waiting = self.waiting[:length], self.waiting[length:]
        self.fed_bytes += len(piece)
        said = self.whole.receive(piece)
        assert said == b"".join(self.bytewise.receive(piece[at : at + 1]) for at in range(len(piece)))

    @precondition(lambda self: self.whole.completed is not None)
    @rule(reply=st.sampled_from([(250, "2.0.0"), (452, "4.3.1"), (550, "5.7.1"), (421, "4.3.2")]))
    def finish(self, reply: tuple[int, str]) -> None:
        assert self.whole.completed == self.bytewise.completed
        made = make_reply(*reply, "said by the shell")
        assert self.whole.finish(made) == self.bytewise.finish(made)

    @rule()
    def shut(self) -> None:
        reply = make_reply(421, "4.3.2", "stopping")
        assert self.whole.shut(reply) == self.bytewise.shut(reply)

    @invariant()
    def twins_agree(self) -> None:
        for fact in ("is_closing", "completed", "deadline_kind", "in_transaction", "helo", "transactions"):
            assert getattr(self.whole, fact) == getattr(self.bytewise, fact), fact
        assert self.whole.refusals == self.bytewise.refusals

    @invariant()
    def memory_is_bounded(self) -> None:
        if self.whole.completed is None:
            assert self.whole.buffered_bytes <= MAX_COMMAND_BYTES + 1
        assert self.whole.buffered_bytes == self.bytewise.buffered_bytes <= self.fed_bytes
        if self.whole.completed is not None:
            assert len(self.whole.completed.message) <= LIMITS.max_message_bytes
            assert 0 < len(self.whole.completed.recipients) <= LIMITS.max_recipients


Receiving.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestReceiving = Receiving.TestCase
