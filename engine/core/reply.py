"""What an SMTP server says, as a value.

Owns: the shape of a reply and its text form.
Never: parses octets (smtp.wire does), decides what a reply means for a delivery.
"""

from __future__ import annotations

import msgspec


class Reply(msgspec.Struct, frozen=True, gc=False):
    """Code, enhanced status ("" when the peer sent none) and text, lines joined by "\\n".

    `synthetic` is True for replies that Mailrail made itself (a time-out, a lost connection):
    rules that match what peers say never see those.
    """

    code: int
    enhanced: str
    text: str
    synthetic: bool = False

    @property
    def is_positive(self) -> bool:
        return 200 <= self.code < 400

    @property
    def is_temporary(self) -> bool:
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        return 500 <= self.code < 600

    def __str__(self) -> str:
        head = f"{self.code} {self.enhanced}" if self.enhanced else str(self.code)
        return f"{head} {self.text}"


def make_reply(code: int, enhanced: str, text: str) -> Reply:
    """Return a reply that Mailrail itself gives."""
    return Reply(code, enhanced, text, True)
