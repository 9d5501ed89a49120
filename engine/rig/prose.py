"""Messages that look like mail: prose of a given size, deterministic, already dot-stuffed.

Owns: bodies and the header fields by which source and sink recognize a message.
Never: draws chance that differs between two runs.
"""

from __future__ import annotations

import random

ID_FIELD = b"X-Test-Id: "
SENT_FIELD = b"X-Sent: "
SUBJECT = "Your order has been confirmed"
VARIANTS = 16  # bodies to choose from: enough that no cache of one message flatters anybody

_TEXT = """
the of and to in a is that it was for on are as with his they at be this from have or by one had not
but what all were when we there can an your which their said if do will each about how up out them
then she many some so these would other into has more her two like him see time could no make than
first been its who now people my made over did down only way find use may water long little very
after words called just where most know delivery invoice account order shipping thanks regards
meeting schedule project update confirm receipt
"""
_WORDS = _TEXT.split()


def make_bodies(size_bytes: int, variants: int = VARIANTS) -> list[bytes]:
    """Return bodies of about `size_bytes` octets, lines of at most 76 characters, ending with CRLF."""
    return [_make_body(size_bytes, random.Random(seed)) for seed in range(variants)]


def _make_body(size_bytes: int, chance: random.Random) -> bytes:
    lines: list[str] = []
    total = 0
    while total < size_bytes:
        line = _make_line(chance)[: max(size_bytes - total - 2, 1)].rstrip()
        lines.append(line)
        total += len(line) + 2
    return "".join(line + "\r\n" for line in lines).encode()


def _make_line(chance: random.Random) -> str:
    if chance.random() < 0.06:
        return ""
    words: list[str] = []
    room = 69  # the last word may pass it by seven
    while room > 0:
        words.append(chance.choice(_WORDS))
        room -= len(words[-1]) + 1
    return " ".join(words).capitalize()


def make_header(test_id: str, sender: str, recipient: str, sent_at: float, subject: str = SUBJECT) -> bytes:
    """Return a header with its empty line. `sent_at`: monotonic seconds, one clock for the whole machine."""
    return (
        f"From: Bench Sender <{sender}>\r\nTo: <{recipient}>\r\n"
        f"Subject: {subject} ({test_id})\r\n"
        f"Message-ID: <{test_id}@bench.example>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
        f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n"
        f"X-Test-Id: {test_id}\r\nX-Sent: {sent_at:.6f}\r\n\r\n"
    ).encode()
