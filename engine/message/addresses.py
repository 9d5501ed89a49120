"""Address lists of header fields: To, Cc, Bcc, From, Sender, Return-Path.

Owns: where one address of a list ends and the next begins.
Never: judges an address (core.address does).
Source: RFC 5322 3.4 (mailbox, group, comments), 4.4 (routes).
"""

from __future__ import annotations

import re

# One match is one piece: a quoted string, an angle address, a literal, a pair, a separator, plain text.
_PIECES = re.compile(r'"(?:[^"\\]|\\.)*"|<[^<>]*>|\[[^\[\]]*\]|\\.|[(),:;]|[^"<\[(),:;\\]+|.', re.DOTALL)


def parse_addresses(value: str) -> list[str]:
    """Return the addresses of an unfolded field value, in order, as they stand there.

    Display names, comments, group names and source routes are left out. What is not an address comes back
    too, so that whoever parses it can say what is wrong.
    """
    found: list[str] = []
    plain: list[str] = []  # outside of comments and angles
    angle: str | None = None
    depth = 0  # of comments
    for piece in _PIECES.findall(value):
        if piece == "(":
            depth += 1
        elif depth:
            depth -= piece == ")"
        elif piece in {",", ";"}:
            _end(found, plain, angle)
            plain, angle = [], None
        elif piece == ":":
            plain = []  # it was the name of a group
        elif piece[0] == "<" and len(piece) > 1:
            angle = piece[1:-1].strip()
        else:
            plain.append(piece)
    _end(found, plain, angle)
    return found


def _end(found: list[str], plain: list[str], angle: str | None) -> None:
    """Add the address that ends here, if one does."""
    if angle is not None:
        found.append(angle.partition(":")[2] if angle.startswith("@") else angle)
        return
    text = "".join(plain).strip()
    if text:
        found.append(text)
