"""Small loads for tests that look at single messages; large ones come from engine.rig.source.

Owns: what a test message looks like, and sessions that take a refusal as an answer.
"""

from __future__ import annotations

import itertools
import smtplib
from collections.abc import Iterable

_serial = itertools.count(1)


def make_message(sender: str, recipient: str, test_id: str, size: int = 500) -> bytes:
    """Return a message that the sink knows by `test_id`."""
    head = f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: test {test_id}\r\nX-Test-Id: {test_id}\r\n\r\n"
    line = "The quick brown fox jumps over the lazy dog, and the dog sleeps on.\r\n"
    return (head + line * max(1, size // len(line))).encode()


def inject(
    port: int, sender: str, recipients: Iterable[str], *, size: int = 500, prefix: str = "m"
) -> dict[str, str]:
    """Send one message to each recipient in one session; return id to recipient of those accepted.

    Raises:
        smtplib.SMTPException: one was refused.
    """
    accepted = {}
    with smtplib.SMTP("127.0.0.1", port, "feeder.example", timeout=30) as session:
        for recipient in recipients:
            test_id = f"{prefix}-{next(_serial)}"
            session.sendmail(sender, [recipient], make_message(sender, recipient, test_id, size))
            accepted[test_id] = recipient
    return accepted


def addresses(count: int, *domains: str) -> list[str]:
    """Return `count` recipients, dealt over the domains."""
    return [f"user{number}@{domains[number % len(domains)]}" for number in range(count)]
