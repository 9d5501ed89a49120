"""A submission of the injection socket, checked: what goes through the one door. HOT.

All or nothing: an address that can't be read refuses the whole, by field and place, since the answer is one.

Owns: what a submission may hold on which listener.
Never: decides whose senders these are (inject.accept does).
Fails: Refused with the reply to give.
"""

from __future__ import annotations

import msgspec

from engine.core.address import parse_mailbox
from engine.core.errors import Refused
from engine.core.lines import line_fault
from engine.core.reply import make_reply
from engine.inject.context import FeedContext
from engine.inject.frames import MAX_ID_CHARACTERS, Submission
from engine.message.headers import MAX_CONTROL_CHARACTERS, MAX_TAGS
from engine.settings.model import ListenerSettings


class Offer(msgspec.Struct, frozen=True, gc=False):
    """What `Acceptor.accept` takes."""

    sender: str
    recipients: list[str]
    message: bytes
    is_8bit: bool
    context: FeedContext


def parse_submission(submission: Submission, settings: ListenerSettings, context: FeedContext) -> Offer:
    """Check a submission; `context` is the connection's, for all that name nothing more.

    Raises:
        Refused: what is wrong with it, by field.
    """
    frame_id = submission.id
    if isinstance(frame_id, str) and not 0 < len(frame_id) <= MAX_ID_CHARACTERS:
        raise _refused(501, "5.5.4", f"id: expected 1 to {MAX_ID_CHARACTERS} characters")
    return Offer(
        _parse_sender(submission.sender),
        _parse_recipients(submission.recipients, settings.max_recipients),
        parse_message(submission.message, settings.max_message_size_bytes),
        not submission.message.isascii(),
        _parse_context(submission, context),
    )


def _parse_sender(sender: str) -> str:
    if not sender:
        return ""
    try:
        mailbox = parse_mailbox(sender, allow_utf8=True)
    except ValueError as error:
        raise _refused(501, "5.1.7", f"sender: {error}") from None
    return f"{mailbox.local}@{mailbox.domain}"


def _parse_recipients(recipients: list[str], max_recipients: int) -> list[str]:
    if not recipients:
        raise _refused(501, "5.5.4", "recipients: expected at least one")
    if len(recipients) > max_recipients:
        raise _refused(550, "5.5.3", f"recipients: expected at most {max_recipients}, got {len(recipients)}")
    found = []
    for index, recipient in enumerate(recipients):
        try:
            mailbox = parse_mailbox(recipient, allow_utf8=True)
        except ValueError as error:
            raise _refused(501, "5.1.3", f"recipients[{index}]: {error}") from None
        found.append(f"{mailbox.local}@{mailbox.domain}")
    return found


def parse_message(message: bytes, max_bytes: int) -> bytes:
    """Return the message with CRLF lines, the last one ended; one with LF alone throughout is converted.

    Raises:
        Refused: too large, mixed line ends, a line too long, a NUL.
    """
    if b"\r" not in message:
        message = message.replace(b"\n", b"\r\n")
    if message and message[-2:] != b"\r\n":
        message += b"\r\n"
    if len(message) > max_bytes:
        raise _refused(552, "5.3.4", f"message: larger than {max_bytes} octets")
    if b"\0" in message:
        raise _refused(550, "5.6.0", "message: holds a NUL")
    fault = line_fault(message)
    if fault:
        enhanced = "5.6.11" if fault.startswith("bare") else "5.6.0"
        raise _refused(550, enhanced, f"message: {fault}")
    return message


def _parse_context(submission: Submission, context: FeedContext) -> FeedContext:
    s = submission
    asked = _asked(s)
    if not (s.customer or s.pool or s.job or s.tags or s.idempotent or asked):
        return context
    if s.customer and not context.is_trusted and s.customer != context.customer:
        raise _refused(550, "5.7.1", f"customer: this listener carries mail of {context.customer} only")
    if s.pool and not context.is_trusted:
        raise _refused(550, "5.7.1", "pool: may be named on a trusted listener only")
    customer = context.customer or s.customer
    if s.idempotent and not customer:
        raise _refused(501, "5.5.4", "customer: expected, for an idempotent id is a customer's")
    _check_labels(s)
    return FeedContext(
        context.feed,
        context.listener,
        customer=customer,
        is_trusted=context.is_trusted,
        peer=context.peer,
        pool=s.pool,
        job=s.job,
        tags=s.tags,
        idempotency=format_idempotency(s.id) if s.idempotent else "",
        max_hold_s=context.max_hold_s,
        asked=asked,
    )


def _asked(submission: Submission) -> dict[str, str]:
    """Return what a submission asks for beyond plain delivery, as text by name."""
    s = submission
    if not (s.notify or s.envid or s.ret or s.hold_for or s.deliver_by or s.requires_tls):
        return {}
    asked = {
        "notify": s.notify,
        "envid": s.envid,
        "ret": s.ret,
        "hold_for": str(s.hold_for) if s.hold_for else "",
        "deliver_by": s.deliver_by,
        "requires_tls": "yes" if s.requires_tls else "",
    }
    return {name: text for name, text in asked.items() if text}


def _check_labels(submission: Submission) -> None:
    """Job and tags end in events and on consoles: short, printable."""
    if not _is_label(submission.job):
        raise _refused(501, "5.5.4", f"job: expected at most {MAX_CONTROL_CHARACTERS} printable characters")
    if len(submission.tags) > MAX_TAGS:
        raise _refused(501, "5.5.4", f"tags: expected at most {MAX_TAGS}")
    for name, value in submission.tags.items():
        if not name or not _is_label(name) or not _is_label(value):
            detail = f"expected names and values of at most {MAX_CONTROL_CHARACTERS} printable characters"
            raise _refused(501, "5.5.4", f"tags: {detail}")


def _is_label(text: str) -> bool:
    return len(text) <= MAX_CONTROL_CHARACTERS and text.isprintable()


def format_idempotency(frame_id: int | str) -> str:
    """Return an id as the store keeps it: 7 and "7" are different ids."""
    return f"s{frame_id}" if isinstance(frame_id, str) else f"i{frame_id}"


def _refused(code: int, enhanced: str, text: str) -> Refused:
    return Refused(make_reply(code, enhanced, text))
