"""normalize: replies that say the same read the same, and lines become replies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.reply import Reply
from engine.policy.normalize import MAX_CHARS, enhanced_of, normalize, parse_reply


def form(text: str, code: int = 550, enhanced: str = "") -> str:
    return normalize(Reply(code, enhanced, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<User@Example.COM>: User unknown", "<@>: user unknown"),
        ("Client host [192.0.2.1] blocked", "client host [ip] blocked"),
        ("from [2001:db8::25:1] refused", "from [ip] refused"),
        ("Greylisted for 299 seconds", "greylisted for # seconds"),
        ("see no=1000728 and AS16012611", "see no=# and as#"),
        ("queued 4XyZ1q2R3sT - gsmtp", "queued id - gsmtp"),
        ('Subject "Buy" refused', 'subject "" refused'),
        ('user "a@b.example of us" refused', 'user "" refused'),
        ("  two   spaces\r\n and lines ", "two spaces and lines"),
        ("you\u2019re blocked\u00a0here", "you're blocked here"),
        ("RFC 5322 section 3.6", "rfc 5322 section 3.6"),
    ],
)
def test_what_differs_between_replies_is_left_out(text: str, expected: str) -> None:
    assert form(text) == expected


@pytest.mark.parametrize(
    "code", ["[TSS04]", "(S3140)", "ofr_416 [416]", "rl000003", "ib105", "[ph01]", "5.7.511"]
)
def test_codes_that_providers_give_stay(code: str) -> None:
    assert form(f"refused {code.upper()}") == f"refused {code.lower()}"


def test_what_is_quoted_and_says_something_stays() -> None:
    assert form('"The server detected your message as spam"') == '"the server detected your message as spam"'


def test_codes_that_are_said_again_on_each_line_are_left_out() -> None:
    assert form("is over\n550-5.2.2 quota\n550 5.2.2 here", 550, "5.2.2") == "is over quota here"
    assert form("is over 552-5.2.2 quota 552 5.2.2 here", 552, "5.2.2") == "is over quota here"
    assert form("one\n550-two\n550 three") == "one two three"


def test_no_more_is_read_than_its_bound() -> None:
    assert len(form("x y " * 100_000)) <= MAX_CHARS


def test_octets_that_are_no_text_are_no_trouble() -> None:
    assert form("caf\udce9 full") == "caf? full"


@given(st.text(max_size=300))
def test_normal_form_of_anything_is_text_that_utf8_takes(text: str) -> None:
    form(text).encode()


@pytest.mark.parametrize("text", ["a" * 4000, "a1" * 2000, "@" * 4000, '"' * 4000, ":" * 4000, "1." * 2000])
def test_texts_made_to_be_slow_are_not(text: str) -> None:
    assert len(form(text)) <= MAX_CHARS


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("550 5.1.1 User unknown", Reply(550, "5.1.1", "User unknown")),
        ("550-5.1.1 User\\n550 5.1.1 unknown", Reply(550, "5.1.1", "User\n550 5.1.1 unknown")),
        ("421 bye", Reply(421, "", "bye")),
        ("550", Reply(550, "", "")),
        ("451 4.7.1: later", Reply(451, "4.7.1", "later")),
        ("421 4.1.0 4.26.39.92 Throttled", Reply(421, "4.1.0", "4.26.39.92 Throttled")),
        ("421 4.26.39.92 Throttled", Reply(421, "", "4.26.39.92 Throttled")),
        ("550 4.4.7 expired", Reply(550, "", "expired")),
        ("smtp; 550 5.1.1 unknown", Reply(550, "5.1.1", "unknown")),
        (
            "host mx.b.example[192.0.2.1] said: 452 4.2.2 full (in reply to RCPT)",
            Reply(452, "4.2.2", "full (in reply to RCPT)"),
        ),
        ("connect to mx.b.example: timed out", Reply(0, "", "connect to mx.b.example: timed out")),
        ("5501 odd", Reply(0, "", "5501 odd")),
        ("", Reply(0, "", "")),
    ],
)
def test_line_becomes_a_reply(line: str, expected: Reply) -> None:
    assert parse_reply(line) == expected


def test_line_without_end_is_cut() -> None:
    assert len(parse_reply("550 " + "x" * 10_000_000).text) <= 4 * MAX_CHARS


@pytest.mark.parametrize(
    ("line", "enhanced"),
    [
        ("550 Invalid recipient (#5.1.1)", "5.1.1"),
        ("550 cuda_nsu 5.1.1 unknown", "5.1.1"),
        ("550 4.2.2 in another class", ""),
        ("421 4.26.39.92 is an address", ""),
        ("Sorry. (#4.4.1)", "4.4.1"),
    ],
)
def test_enhanced_code_is_found_where_a_text_has_one_of_its_class(line: str, enhanced: str) -> None:
    assert enhanced_of(parse_reply(line)) == enhanced
