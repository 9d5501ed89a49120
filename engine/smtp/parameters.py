"""What stands behind MAIL and RCPT towards a peer: what a message needs, where the peer offers it.

A peer that lacks what a message can't go without does not get it mangled: `refusal` is the reply that bounces
it, unsent. Everything else that a peer does not offer is left out, and stays ours to do (delivery.notices).

Owns: which parameter is sent to whom.
Never: reads a clock; changes a message.
Source: RFC 1870 6, RFC 2852 3 and 4, RFC 3461 5, RFC 6152 3, RFC 6531 3.2 and 3.6, RFC 8689 4.2.1 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from engine.core.envelope import Envelope
from engine.core.reply import Reply, make_reply
from engine.core.terms import Terms, format_by, to_ascii_orcpt


class PeerExtensions(Protocol):
    """What a peer offered in its EHLO reply."""

    @property
    def parameters(self) -> Mapping[str, str]: ...
    @property
    def has_8bitmime(self) -> bool: ...
    @property
    def has_smtputf8(self) -> bool: ...
    @property
    def has_dsn(self) -> bool: ...
    @property
    def size_limit(self) -> int: ...
    @property
    def is_lmtp(self) -> bool: ...


def refusal(
    extensions: PeerExtensions,
    envelope: Envelope,
    recipients: Sequence[str],
    message: bytes,
    host: str,
    unix_clock: Callable[[], float],
) -> Reply | None:
    """Return why a peer can't have a message, None when it can. HOT.

    Args:
        host: the peer's name, for whoever reads the bounce.
        unix_clock: asked only where a message has a deadline.
    """
    limit = extensions.size_limit
    if 0 < limit < len(message):
        return make_reply(552, "5.3.4", f"message of {len(message)} octets; {host} takes {limit}")
    terms = envelope.terms
    if terms is not None:
        found = _refusal_of_terms(terms, extensions, envelope, recipients, message, host, unix_clock)
        if found is not None:
            return found
    if envelope.is_8bit and not extensions.has_8bitmime:
        return make_reply(554, "5.6.3", f"message has 8-bit content; {host} does not offer 8BITMIME")
    return None


def _refusal_of_terms(
    terms: Terms,
    extensions: PeerExtensions,
    envelope: Envelope,
    recipients: Sequence[str],
    message: bytes,
    host: str,
    unix_clock: Callable[[], float],
) -> Reply | None:
    if not extensions.has_smtputf8 and needs_smtputf8(envelope, recipients, message):
        return make_reply(553, "5.6.7", f"address or header in UTF-8; {host} does not offer SMTPUTF8")
    # RFC 8689 5: of the null return-path (a bounce, which holds the header only) it is no reason to lose it.
    if terms.requires_tls and envelope.sender and "REQUIRETLS" not in extensions.parameters:
        return make_reply(550, "5.7.30", f"REQUIRETLS was asked for; {host} does not offer it")
    if terms.by_mode[:1] == "R":
        # RFC 2852 4.1.4.1: it must not be relayed to a server without Deliver By, nor to one whose minimum is
        # longer than what is left. Over LMTP it is delivered, not relayed.
        if "DELIVERBY" not in extensions.parameters and not extensions.is_lmtp:
            text = f"it may be relayed only where its deadline is kept; {host} does not offer DELIVERBY"
            return make_reply(554, "5.4.7", text)
        left_s = int(terms.deliver_by_at - unix_clock())
        least_s = _least_by_s(extensions)
        if left_s < max(least_s, 1):
            return make_reply(554, "5.4.7", f"{left_s} s are left to deliver it; {host} asks for {least_s}")
    return None


def _least_by_s(extensions: PeerExtensions) -> int:
    """Return the shortest time for which a peer takes a DELIVERBY request; 0 where it says none.

    Behind a comma may stand what a later standard says (RFC 2852 3).
    """
    text = extensions.parameters.get("DELIVERBY", "").partition(",")[0].strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0


def needs_smtputf8(envelope: Envelope, recipients: Sequence[str], message: bytes) -> bool:
    """Return whether this transaction needs SMTPUTF8 (RFC 6531 3.2): an address, or the header."""
    terms = envelope.terms
    if terms is None or not terms.is_utf8:
        return False
    if not envelope.sender.isascii() or not "".join(recipients).isascii():
        return True
    return envelope.is_8bit and not message.partition(b"\r\n\r\n")[0].isascii()


def mail_parameters(
    extensions: PeerExtensions,
    envelope: Envelope,
    recipients: Sequence[str],
    message: bytes,
    unix_clock: Callable[[], float],
) -> str:
    """Return what stands behind MAIL's path, each parameter behind its space. HOT."""
    offered = extensions.parameters
    text = f" SIZE={len(message)}" if "SIZE" in offered and message else ""
    if envelope.is_8bit and extensions.has_8bitmime:
        text += " BODY=8BITMIME"
    terms = envelope.terms
    if terms is None:
        return text
    if extensions.has_smtputf8 and needs_smtputf8(envelope, recipients, message):
        text += " SMTPUTF8"
    if extensions.has_dsn:
        text += f" RET={terms.ret}" if terms.ret else ""
        text += f" ENVID={terms.envid}" if terms.envid else ""
    if terms.by_mode not in ("", "E") and "DELIVERBY" in offered:
        text += f" BY={format_by(int(terms.deliver_by_at - unix_clock()), terms.by_mode)}"
    if terms.requires_tls and "REQUIRETLS" in offered:
        text += " REQUIRETLS"
    return text


def rcpt_parameters(
    extensions: PeerExtensions, envelope: Envelope, recipients: Sequence[str], message: bytes
) -> list[str] | None:
    """Return what stands behind each RCPT's path; None: nothing behind any. HOT."""
    terms = envelope.terms
    if terms is None or not extensions.has_dsn:
        return None
    must_tell_delays = terms.by_mode[:1] == "N" and "DELIVERBY" not in extensions.parameters
    if not (terms.notify or terms.recipients or must_tell_delays):
        return None
    is_utf8 = extensions.has_smtputf8 and needs_smtputf8(envelope, recipients, message)
    found = []
    for recipient in recipients:
        notify, orcpt = terms.notify_of(recipient), terms.orcpt_of(recipient)
        if must_tell_delays:
            notify = _with_delay(notify)
        text = f" NOTIFY={notify}" if notify else ""
        if orcpt:
            text += f" ORCPT={orcpt if is_utf8 else to_ascii_orcpt(orcpt)}"
        found.append(text)
    return found


def _with_delay(notify: str) -> str:
    """Return NOTIFY so that a peer that does not know the deadline tells of delays (RFC 2852 4.1.4.2)."""
    if not notify:
        return "FAILURE,DELAY"
    return notify if notify == "NEVER" or "DELAY" in notify else f"{notify},DELAY"
