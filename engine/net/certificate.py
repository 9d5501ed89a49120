"""The certificate of a listener, and the context that shows it; both change while the listener serves.

Owns: the context for the server side of TLS; when its files have changed.
Never: does a handshake. Sessions that are open keep the context that they began with.
Fails: CertificateError from `make_server_context`; `refresh` logs what can't be used, and the old stays.
Source: RFC 8314 (TLS for submission), RFC 8996 (nothing below 1.2), RFC 9325.
"""

from __future__ import annotations

import os
import ssl

from engine.net.alerts import TellingObject
from engine.net.tls import MINIMUM_VERSIONS
from engine.telemetry.log import Log

HANDSHAKE_TIMEOUT_S = 30.0  # two round trips of the worst line, and a client that computes slowly
SHUTDOWN_TIMEOUT_S = 5.0  # for the peer's close_notify; nothing is lost without it

log = Log("tls")

Stamp = tuple[int, ...]  # what changes when a file does


class CertificateError(Exception):
    """A certificate and key that can't be used; the text says why."""


def make_server_context(certificate: str, key: str, minimum: str = "1.2") -> ssl.SSLContext:
    """Return a context that shows the chain in file `certificate`.

    Raises:
        CertificateError: a file can't be read, or they don't belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = TellingObject
    context.minimum_version = MINIMUM_VERSIONS[minimum]
    # Renegotiation is CPU time that a client may ask for at will.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise CertificateError(
            f"{certificate} and {key}: not a certificate and its key in PEM: {_reason(error)}"
        ) from error
    except OSError as error:
        raise CertificateError(f"can't read {_unreadable(certificate, key)}: {error.strerror}") from error
    return context


class Certificate:
    """The files that a listener's settings name, and the context made of them."""

    def __init__(self, certificate: str, key: str, minimum: str) -> None:
        self.files = (certificate, key, minimum)
        self.context: ssl.SSLContext | None = None  # None: never yet usable
        self._stamps: tuple[Stamp, Stamp] | None = None
        self.refresh()

    def refresh(self, *, is_asked: bool = False) -> None:
        """Make a new context if a file has changed, or if an operator asks for it (reload)."""
        certificate, key, minimum = self.files
        stamps = (_stamp(certificate), _stamp(key))
        if stamps == self._stamps and not is_asked:
            return
        is_first = self._stamps is None
        self._stamps = stamps  # also of files that are bad: told once, tried again when they change
        try:
            self.context = make_server_context(certificate, key, minimum)
        except CertificateError as error:
            log.error("certificate not usable", reason=str(error), is_old_kept=self.context is not None)
            return
        if not is_first:
            log.info("certificate loaded", certificate=certificate)


def _stamp(file: str) -> Stamp:
    try:
        found = os.stat(file)
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _no_password() -> str:
    """OpenSSL would ask the terminal for it, and the loop would wait."""
    raise ssl.SSLError("the key has a password")


def _reason(error: ssl.SSLError) -> str:
    return getattr(error, "reason", None) or str(error.args[0] if error.args else error)


def _unreadable(certificate: str, key: str) -> str:
    return certificate if not os.access(certificate, os.R_OK, effective_ids=True) else key
