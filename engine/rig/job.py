"""One message that a feed offers, and a plan: a file that names the messages to send, one a line.

A line of a plan: {"id": "acme-17", "sender": "news@acme.example", "recipients": ["u@d.example"],
"size": 10000, "subject": "Your invoice"}.  A line of the record of what was accepted: {"id", "rcpt", "t",
"sent"}, written only once the message has been accepted.

Owns: the form of both files, and how a job becomes a message.
Never: touches a socket.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.rig.prose import SUBJECT, make_bodies, make_header

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Job:
    """One message to offer."""

    test_id: str
    sender: str
    recipients: list[str]
    body: bytes
    subject: str = SUBJECT
    sent_at: float = 0.0

    def make_content(self, sent_at: float) -> bytes:
        """Return the message as it is offered at `sent_at` (monotonic)."""
        self.sent_at = sent_at
        return make_header(self.test_id, self.sender, self.recipients[0], sent_at, self.subject) + self.body

    def record(self, now: float) -> bytes:
        """Return the line that says that the message was accepted at `now` (monotonic)."""
        facts = {"id": self.test_id, "rcpt": self.recipients, "t": now, "sent": self.sent_at}
        return _encode(facts) + b"\n"


class Planned(msgspec.Struct, frozen=True):
    """One line of a plan."""

    id: str
    sender: str
    recipients: list[str]
    size: int
    subject: str = SUBJECT


def write_plan(path: Path, lines: Iterable[Planned]) -> None:
    """Write a plan to a file."""
    path.write_bytes(b"".join(_encode(line) + b"\n" for line in lines))


def load_plan(path: Path) -> list[Job]:
    """Read a plan; messages of one size take turns over a few bodies."""
    decoder = msgspec.json.Decoder(Planned)
    bodies: dict[int, list[bytes]] = {}
    jobs = []
    for number, text in enumerate(path.read_bytes().splitlines()):
        line = decoder.decode(text)
        choice = bodies.get(line.size) or bodies.setdefault(line.size, make_bodies(line.size))
        jobs.append(Job(line.id, line.sender, line.recipients, choice[number % len(choice)], line.subject))
    return jobs
