"""`mailrail send`: hand one message to a running engine, by SMTP, and show what it answered.

Owns: the message that is made where none is given, and the choice of the listener.
Fails: SendError, whose text says what the listener answered.
"""

from __future__ import annotations

import asyncio
import ipaddress
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid
from typing import Any, NamedTuple

import aiosmtplib

from engine.core.errors import ConfigError, Origin
from engine.settings.model import Settings

SEND_TIMEOUT_S = 60.0


class SendError(Exception):
    """The message was not taken; `code` is 0 where the listener could not be reached."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Letter(NamedTuple):
    """What to send: envelope and message."""

    sender: str
    recipients: list[str]
    message: bytes


def find_listener(settings: Settings, config_path: str, name: str) -> tuple[str, int]:
    """Return host and port of the SMTP listener called `name`, or of the first one."""
    smtp = [listener for listener in settings.listeners if listener.protocol == "smtp"]
    for listener in smtp:
        if name in ("", listener.name):
            return _reachable(listener.address), listener.port
    names = ", ".join(listener.name for listener in smtp) or "none"
    wanted = f"SMTP listener {name!r}" if name else "SMTP listener"
    raise ConfigError(Origin(config_path, 0), f"there is no {wanted}; there are: {names}")


def make_message(sender: str, recipients: list[str], subject: str, text: str) -> bytes:
    """Return a plain text message."""
    is_utf8 = not (sender.isascii() and "".join(recipients).isascii())
    message = EmailMessage(policy.SMTPUTF8 if is_utf8 else policy.default)
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2] or None)
    message.set_content(text)
    return message.as_bytes()


def send_letter(host: str, port: int, letter: Letter) -> dict[str, Any]:
    """Hand the letter over; return what the listener answered, and whom it refused.

    Raises:
        SendError: it was not taken for anybody.
    """
    try:
        refused, answer = asyncio.run(_send(host, port, letter))
    except aiosmtplib.SMTPRecipientsRefused as error:
        codes = {each.recipient: f"{each.code} {each.message}" for each in error.recipients}
        raise SendError("; ".join(f"{who}: {reply}" for who, reply in codes.items()), 550) from error
    except aiosmtplib.SMTPResponseException as error:
        raise SendError(f"{error.code} {error.message}", error.code) from error
    except (aiosmtplib.SMTPException, OSError) as error:
        raise SendError(f"{host}:{port}: {error}") from error
    replies = {recipient: f"{reply[0]} {reply[1]}" for recipient, reply in refused.items()}
    return {"reply": answer, "refused": replies, "listener": f"{host}:{port}"}


async def _send(host: str, port: int, letter: Letter) -> tuple[dict[str, Any], str]:
    client = aiosmtplib.SMTP(hostname=host, port=port, timeout=SEND_TIMEOUT_S, start_tls=False)
    is_ascii = letter.sender.isascii() and "".join(letter.recipients).isascii()
    options = [] if is_ascii else ["SMTPUTF8"]
    async with client:
        refused, answer = await client.sendmail(
            letter.sender, letter.recipients, letter.message, mail_options=options
        )
    return dict(refused), answer


def _reachable(address: str) -> str:
    """A listener on every address is reached on loopback."""
    if not address:
        return "127.0.0.1"
    listens_on = ipaddress.ip_address(address)
    if not listens_on.is_unspecified:
        return address
    return "127.0.0.1" if listens_on.version == 4 else "::1"
