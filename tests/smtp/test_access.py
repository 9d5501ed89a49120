"""STARTTLS, AUTH and XCLIENT within a conversation: when each may come, what follows."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.reply import make_reply
from engine.smtp.access import HANDSHAKE, Access, AccessRules
from engine.smtp.auth import Credentials
from engine.smtp.hello import ServerLimits
from engine.smtp.server import ServerConversation
from engine.smtp.xclient import Attributes

LIMITS = ServerLimits("mta1.example.net")
HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@acme.example>\r\n"
PLAIN = b"AUTH PLAIN " + base64.b64encode(b"\0ann\0secret") + b"\r\n"
SUBMISSION = AccessRules(has_starttls=True, requires_auth=True)
IN_CLEAR = AccessRules(requires_auth=True, allows_plaintext_auth=True)
ACCEPTED = make_reply(235, "2.7.0", "Authentication successful")
WRONG = make_reply(535, "5.7.8", "Authentication credentials invalid")


def converse(rules: AccessRules, **facts: Any) -> ServerConversation:
    return ServerConversation(LIMITS, access=Access(rules, **facts))


def codes(out: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"^(\d{3}) ", out, re.MULTILINE)]


@pytest.mark.parametrize(
    ("rules", "facts", "offers"),
    [
        (AccessRules(), {}, []),
        (AccessRules(has_starttls=True), {}, ["STARTTLS"]),
        (AccessRules(has_starttls=True), {"is_secure": True}, []),
        (SUBMISSION, {}, ["STARTTLS"]),
        (SUBMISSION, {"is_secure": True}, ["AUTH PLAIN LOGIN"]),
        (IN_CLEAR, {}, ["AUTH PLAIN LOGIN"]),
        (AccessRules(), {"may_xclient": True}, ["XCLIENT NAME ADDR PORT PROTO HELO LOGIN"]),
    ],
)
def test_ehlo_offers_what_may_be_used_now(
    rules: AccessRules, facts: dict[str, bool], offers: list[str]
) -> None:
    """RFC 3207 4.2: no STARTTLS under TLS. RFC 4954 4: no PLAIN without it."""
    lines = [line[4:] for line in converse(rules, **facts).receive(HELLO).decode().splitlines()]
    assert [line for line in lines if line.split()[0] in {"STARTTLS", "AUTH", "XCLIENT"}] == offers
    assert ("REQUIRETLS" in lines) == facts.get("is_secure", False)


@pytest.mark.parametrize(
    ("rules", "facts", "commands", "expected"),
    [
        (AccessRules(), {}, HELLO + b"STARTTLS\r\n" + PLAIN, [250, 500, 500]),
        (SUBMISSION, {}, b"STARTTLS\r\n" + PLAIN, [503, 503]),
        (SUBMISSION, {}, HELLO + PLAIN + b"STARTTLS now\r\n", [250, 538, 501]),
        (SUBMISSION, {"is_secure": True}, HELLO + b"STARTTLS\r\n", [250, 503]),
        (SUBMISSION, {}, HELLO + MAIL, [250, 530]),
        (IN_CLEAR, {}, HELLO + b"AUTH\r\nAUTH PLAIN = =\r\nAUTH GSSAPI\r\n", [250, 501, 501, 504]),
        (AccessRules(), {}, b"XCLIENT ADDR=192.0.2.9\r\n", [550]),
        (AccessRules(), {"may_xclient": True}, HELLO + MAIL + b"XCLIENT ADDR=192.0.2.9\r\n", [250, 250, 503]),
        (AccessRules(), {"may_xclient": True}, b"XCLIENT ADDR=x\r\n", [501]),
        (IN_CLEAR, {}, HELLO + b"AUTH PLAIN\0x\r\nSTARTTLS\0\r\n", [250, 500, 500]),
    ],
)
def test_commands_out_of_place_are_refused(
    rules: AccessRules, facts: dict[str, bool], commands: bytes, expected: list[int]
) -> None:
    """RFC 4954 section 4; RFC 4954 section 6."""
    conversation = converse(rules, **facts)
    assert codes(conversation.receive(commands)) == expected
    assert conversation.access.wants is None


def test_auth_rests_until_the_credentials_were_looked_at() -> None:
    conversation = converse(IN_CLEAR)
    assert codes(conversation.receive(HELLO + PLAIN + MAIL)) == [250]
    assert conversation.access.wants == Credentials("ann", b"secret")
    assert conversation.deadline_kind is None
    assert conversation.receive(b"RSET\r\n") == b""
    assert codes(conversation.authenticated(ACCEPTED, "ann")) == [235, 250, 250]
    assert codes(conversation.receive(PLAIN)) == [503]


@pytest.mark.parametrize(("value", "code"), [(b"<>", 250), (b"ann+40x", 250), (b"", 501), (b"\xc3\xb6", 501)])
def test_mail_may_say_who_submitted_it(value: bytes, code: int) -> None:
    """RFC 4954 5: AUTH= is taken where AUTH is offered; nobody is trusted to say it."""
    conversation = converse(IN_CLEAR)
    conversation.receive(HELLO + PLAIN)
    conversation.authenticated(ACCEPTED, "ann")
    assert codes(conversation.receive(MAIL[:-2] + b" AUTH=" + value + b"\r\n")) == [code]
    plain = converse(AccessRules())
    assert codes(plain.receive(HELLO + MAIL[:-2] + b" AUTH=<>\r\n")) == [250, 555]


def test_auth_inside_a_transaction_is_refused() -> None:
    """RFC 4954 3: AUTH is not permitted during a mail transaction (seen with a front end's LOGIN)."""
    access = Access(IN_CLEAR)
    conversation = ServerConversation(LIMITS, access=access)
    access.be("ann")
    conversation.receive(HELLO + MAIL)
    access.be("")
    assert codes(conversation.receive(PLAIN)) == [503]


def test_wrong_credentials_may_be_followed_by_others_up_to_a_bound() -> None:
    conversation = converse(IN_CLEAR)
    conversation.receive(HELLO)
    for _ in range(LIMITS.max_errors):
        conversation.receive(PLAIN)
        assert codes(conversation.authenticated(WRONG, "")) == [535]
    conversation.receive(PLAIN)
    assert codes(conversation.authenticated(WRONG, "")) == [535, 421]
    assert conversation.is_closing


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_exchange_in_pieces(size: int) -> None:
    octets = HELLO + b"AUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\n"
    conversation = converse(IN_CLEAR)
    out = b""
    for start in range(0, len(octets), size):
        out += conversation.receive(octets[start : start + size])
    assert codes(out) == [250, 334, 334]
    assert conversation.access.wants == Credentials("ann", b"secret")


def test_cancelled_exchange_is_over() -> None:
    """RFC 4954 4."""
    conversation = converse(IN_CLEAR)
    assert codes(conversation.receive(HELLO + b"AUTH LOGIN\r\n*\r\nNOOP\r\n")) == [250, 334, 501, 250]


def test_bare_line_end_in_an_exchange_ends_the_session() -> None:
    conversation = converse(IN_CLEAR)
    assert codes(conversation.receive(HELLO + b"AUTH LOGIN\r\nYW5u\n")) == [250, 334, 500]
    assert conversation.is_closing


def test_tls_forgets_everything() -> None:
    """RFC 3207 4.2: the protocol is reset to the initial state."""
    conversation = converse(AccessRules(has_starttls=True))
    conversation.receive(HELLO + MAIL)
    assert codes(conversation.receive(b"STARTTLS\r\n")) == [220]
    assert conversation.access.wants is HANDSHAKE
    conversation.secured()
    assert not conversation.in_transaction
    assert conversation.helo == ""
    assert codes(conversation.receive(MAIL)) == [503]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_anything_behind_starttls_is_refused(size: int) -> None:
    """RFC 3207 4: STARTTLS must be the last of a pipelined group. Octet by octet the 220 may come first;
    what is read behind it is not looked at, and thrown away."""
    octets = HELLO + b"STARTTLS\r\n" + MAIL
    conversation = converse(AccessRules(has_starttls=True))
    out = b""
    for start in range(0, len(octets), size):
        out += conversation.receive(octets[start : start + size])
    if size == 1000:
        assert codes(out) == [250, 554]
        assert conversation.is_closing
        return
    assert codes(out)[:1] == [250]
    if not conversation.is_closing:
        conversation.secured()
        assert conversation.buffered_bytes == 0
        assert not conversation.in_transaction


def test_front_end_is_greeted_as_the_client_that_it_speaks_for() -> None:
    """Postfix's XCLIENT_README: the server replies 220 and begins anew."""
    conversation = converse(IN_CLEAR, may_xclient=True)
    conversation.receive(HELLO)
    assert conversation.receive(b"XCLIENT ADDR=192.0.2.9 LOGIN=ann HELO=c.example\r\n" + MAIL) == b""
    assert conversation.access.wants == Attributes(addr="192.0.2.9", login="ann", helo="c.example")
    assert codes(conversation.presented(None)) == [220, 503]
    assert (conversation.access.user, conversation.access.xhelo) == ("ann", "c.example")
    assert codes(conversation.receive(HELLO + MAIL)) == [250, 250]


def test_front_end_whose_client_is_refused_is_closed() -> None:
    conversation = converse(AccessRules(), may_xclient=True)
    conversation.receive(b"XCLIENT ADDR=192.0.2.9\r\n")
    assert codes(conversation.presented(make_reply(554, "5.7.1", "no"))) == [554]
    assert conversation.is_closing


@pytest.mark.parametrize(
    ("facts", "user", "proto", "is_esmtp", "expected"),
    [
        ({}, "", "", False, "SMTP"),
        ({}, "", "", True, "ESMTP"),
        ({"is_secure": True}, "", "", True, "ESMTPS"),
        ({}, "ann", "", True, "ESMTPA"),
        ({"is_secure": True}, "ann", "", True, "ESMTPSA"),
        ({}, "", "SMTP", True, "SMTP"),
        ({}, "", "ESMTP", False, "ESMTP"),
    ],
)
def test_word_behind_with(
    facts: dict[str, bool], user: str, proto: str, is_esmtp: bool, expected: str
) -> None:
    """RFC 3848."""
    access = Access(**facts)
    access.be(user)
    access.proto = proto
    assert access.protocol(is_esmtp=is_esmtp) == expected


def test_commands_of_access_are_bounded_like_others_without_a_message() -> None:
    conversation = converse(AccessRules(), may_xclient=True)
    for _ in range(LIMITS.max_idle_commands):
        conversation.receive(b"XCLIENT ADDR=192.0.2.9\r\n")
        conversation.presented(None)
    assert codes(conversation.receive(b"XCLIENT ADDR=192.0.2.9\r\n")) == [421]


_LINES = st.sampled_from(
    [
        *(HELLO, b"HELO c\r\n", MAIL, b"RCPT TO:<b@x.example>\r\n", b"DATA\r\n", b"x\r\n.\r\n", b"RSET\r\n"),
        *(
            b"STARTTLS\r\n",
            PLAIN,
            b"AUTH LOGIN\r\n",
            b"YW5u\r\n",
            b"*\r\n",
            b"\xff\0\r\n",
            b"\n",
            b"BDAT 3\r\n",
        ),
        *(b"XCLIENT ADDR=192.0.2.9 LOGIN=ann\r\n", b"XCLIENT NAME=\r\n", b"QUIT\r\n", b"AUTH", b"STARTTLS\r"),
    ]
)


@given(st.lists(_LINES, max_size=30), st.integers(1, 40), st.booleans(), st.booleans())
def test_whatever_comes_is_answered_and_rests_where_the_shell_has_work(
    lines: list[bytes], size: int, is_secure: bool, is_right: bool
) -> None:
    """The shell does at once what is wanted; nothing of the clear is left when TLS is on."""
    rules = AccessRules(has_starttls=True, requires_auth=True, allows_plaintext_auth=True)
    conversation = converse(rules, is_secure=is_secure, may_xclient=True)
    octets = b"".join(lines)
    for start in range(0, len(octets), size):
        conversation.receive(octets[start : start + size])
        while not conversation.is_closing:
            wanted = conversation.access.wants
            if conversation.completed is not None:
                assert conversation.access.user
                conversation.finish(make_reply(250, "2.0.0", "taken"))
            elif wanted is HANDSHAKE:
                assert conversation.buffered_bytes == 0
                conversation.secured()
                assert not conversation.in_transaction
                assert (conversation.access.user, conversation.helo) == ("", "")
            elif isinstance(wanted, Credentials):
                conversation.authenticated(ACCEPTED if is_right else WRONG, "ann" if is_right else "")
            elif isinstance(wanted, Attributes):
                conversation.presented(None)
            else:
                break
