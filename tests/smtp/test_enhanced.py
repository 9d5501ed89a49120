"""The enhanced code of a reply that has none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.reply import Reply
from engine.smtp.enhanced import status_of
from engine.smtp.wire import parse_reply_line


@pytest.mark.parametrize(
    ("code", "phase", "status"),
    [
        (250, "data", "2.0.0"),
        (421, "rcpt", "4.3.2"),
        (450, "rcpt", "4.2.0"),
        (452, "rcpt", "4.3.1"),
        (501, "rcpt", "5.1.3"),
        (501, "mail", "5.1.7"),
        (550, "rcpt", "5.1.0"),
        (550, "data", "5.7.0"),
        (552, "mail", "5.3.4"),
        (552, "rcpt", "5.2.2"),
        (554, "data", "5.0.0"),
        (521, "mail", "5.3.2"),
        (556, "rcpt", "5.1.10"),
        (499, "data", "4.0.0"),
    ],
)
def test_code_and_phase_give_the_status(code: int, phase: str, status: str) -> None:
    """RFC 3463 section 3 and the registry of RFC 5248; RFC 7504, RFC 7505."""
    assert status_of(Reply(code, "", "text"), phase) == status


def test_what_the_peer_says_is_kept() -> None:
    assert status_of(Reply(550, "5.7.26", "unauthenticated"), "data") == "5.7.26"


@given(st.integers(200, 599), st.sampled_from(["mail", "rcpt", "data"]))
def test_status_is_always_in_the_class_of_the_code(code: int, phase: str) -> None:
    """RFC 2034 section 4: "the first digit of the code MUST agree" with the reply's."""
    assert status_of(Reply(code, "", ""), phase).startswith(f"{code // 100}.")


@pytest.mark.parametrize(
    ("line", "status", "text"),
    [
        (b"250 5.1.1 ok", "2.0.0", "5.1.1 ok"),
        (b"550 4.2.1 no such user", "5.1.0", "4.2.1 no such user"),
        (b"450 2.0.0 later", "4.2.0", "2.0.0 later"),
        (b"550 5.1 no", "5.1.0", "5.1 no"),
        (b"550 5.1.1.1 no", "5.1.0", "5.1.1.1 no"),
        (b"550 5.1.1000 no", "5.1.0", "5.1.1000 no"),
    ],
)
def test_enhanced_code_of_another_class_is_text_and_the_reply_code_counts(
    line: bytes, status: str, text: str
) -> None:
    """RFC 2034 section 4 and RFC 3463 section 2: class and form must fit; the code is trusted."""
    reply = parse_reply_line(line)
    assert (reply.code, reply.enhanced, reply.text) == (int(line[:3]), "", text)
    assert status_of(reply, "rcpt") == status
