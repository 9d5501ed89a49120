"""MAIL and RCPT lines, parsed: a path and the parameters behind it.

Owns: what stands behind "FROM:" and "TO:".
Never: keeps state; knows what a session allows.
Fails: Refused with the reply to give.
Source: RFC 5321 4.1.2 (paths, source routes), 4.1.1.11 and RFC 1870, RFC 6152 (parameters).
"""

from __future__ import annotations

from engine.core.address import parse_mailbox
from engine.core.errors import Refused
from engine.core.reply import make_reply

_MAX_SIZE_DIGITS = 20  # RFC 1870 section 4


def parse_path(rest: bytes, *, is_sender: bool) -> tuple[str, bytes]:
    """Split `<address> parameters` into the address in its normal form and the parameters.

    The null path "" is for senders only; `<postmaster>` without a domain for recipients only
    (RFC 5321 4.5.1). A source route is read and ignored (RFC 5321 appendix F.2).
    """
    enhanced = "5.1.7" if is_sender else "5.1.3"
    rest = rest.lstrip(b" ")  # "FROM: <a@b>" is not RFC 5321, but half the world's scripts
    end = _path_end(rest)
    if rest[:1] != b"<" or end < 0 or rest[end + 1 : end + 2] not in (b"", b" "):
        raise Refused(make_reply(501, enhanced, "Syntax: address in angle brackets"))
    path = rest[1:end]
    if path[:1] == b"@":
        path = path.partition(b":")[2]
    if not path and is_sender:
        return "", rest[end + 1 :]
    try:
        text = path.decode("ascii")
    except UnicodeDecodeError:
        raise Refused(make_reply(553, "5.6.7", "Address is not ASCII")) from None
    if not is_sender and text.lower() == "postmaster":
        return "postmaster", rest[end + 1 :]
    try:
        mailbox = parse_mailbox(text)
    except ValueError as error:
        raise Refused(make_reply(501, enhanced, f"Bad address: {error}")) from None
    return f"{mailbox.local}@{mailbox.domain}", rest[end + 1 :]


def _path_end(rest: bytes) -> int:
    """Return where the path's closing bracket is; brackets inside a quoted local part don't count."""
    end = rest.find(b">")
    quote = rest.find(b'"')
    if not 0 <= quote < end:
        return end
    position, length = quote + 1, len(rest)
    while position < length and rest[position] != 0x22:
        position += 2 if rest[position] == 0x5C else 1
    return rest.find(b">", position)


def parse_mail_parameters(octets: bytes) -> int:
    """Check the parameters of MAIL; return the declared SIZE, 0 when there is none.

    BODY says 7BIT or 8BITMIME and is checked, not kept: the octets themselves tell.
    """
    size = 0
    seen = set()
    for parameter in octets.split():
        keyword, _, value = parameter.upper().partition(b"=")
        if keyword in seen:
            raise Refused(make_reply(501, "5.5.4", "Parameter given twice"))
        seen.add(keyword)
        if keyword == b"SIZE":
            if not value.isdigit() or len(value) > _MAX_SIZE_DIGITS:
                raise Refused(make_reply(501, "5.5.4", "Syntax: SIZE=octets"))
            size = int(value)
        elif keyword == b"BODY":
            if value not in (b"7BIT", b"8BITMIME"):
                raise Refused(make_reply(501, "5.5.4", "Syntax: BODY=7BIT or BODY=8BITMIME"))
        else:
            raise Refused(make_reply(555, "5.5.4", "Parameter not recognized or not offered"))
    return size
