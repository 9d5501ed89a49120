"""What may be asked of the admin API: the same for whoever asks and for whoever is asked.

Owns: the bounds of a question's parameters.
Fails: ValueError that says what was expected.
"""

from __future__ import annotations

import re

DEFAULT_LIMIT = 100
MAX_LIMIT = 10_000  # rows; above this the answer is no longer something that a person asked for

_match_id = re.compile(r"[0-9a-f]{24}").fullmatch


def parse_limit(text: str) -> int:
    """Return how many rows are wanted."""
    # Digits are counted first: Python refuses to read thousands of them, in words of its own.
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT):
        raise ValueError(f"expected a number from 1 to {MAX_LIMIT}, got {text!r}")
    return int(text)


def parse_message_id(text: str) -> str:
    """Return a message's id as stores have it."""
    message_id = text.lower()
    if not _match_id(message_id):
        raise ValueError(f"expected a message id of 24 hexadecimal digits, got {message_id!r}")
    return message_id
