"""The one tree of exceptions.

    MailrailError
        ConfigError(origin, detail)         a file, key or line that an operator must mend
        ProtocolError
            LocalProtocolError              we broke the rules: a bug
            RemoteProtocolError             the peer did
        NetworkError(phase, detail)         proxy, connect, greeting, tls, auth, transaction
            TimedOut
            SourceUnavailable               the vmta's source address is not on this host
            TlsFailed                       the peer's TLS does not work, or does not prove who it is
        ResolveError(name, detail)
            ResolveTemporary                ask again later
            ResolvePermanent                the domain can't receive mail; carries the reply to give
        StoreError
            StoreFull                       map or disk past its watermark: 452, deliveries go on
            StoreUnhealthy                  the environment can't be used: a disk, a lock, a failed commit
                StoreDamaged                what is in its file is damaged: quarantine, salvage
        PerhapsStored                   another shard was asked to store it and died before it answered
        Refused(reply)                      an injection that we refuse, with the reply to give

4xx and 5xx replies of peers are values (`core.reply`), never exceptions.
Foreign exceptions are translated once, at the seam. `AssertionError` is a bug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.core.reply import Reply


class Origin(NamedTuple):
    """Where a setting was written: file name and line (1-based; 0 when the whole file is meant)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class MailrailError(Exception):
    """Root of everything that Mailrail raises on purpose."""


class ConfigError(MailrailError):
    """A setting that an operator must mend; `str()` names file, line, key and what was expected."""

    def __init__(self, origin: Origin, detail: str) -> None:
        super().__init__(f"{origin}: {detail}")
        self.origin = origin
        self.detail = detail


class ProtocolError(MailrailError):
    """One end broke the rules of SMTP or of one of our own protocols."""


class LocalProtocolError(ProtocolError):
    """We broke the rules: a bug."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules."""


class NetworkError(MailrailError):
    """A connection failed in `phase` (local, proxy, connect, greeting, ehlo, tls, auth, transaction)."""

    def __init__(self, phase: str, detail: str) -> None:
        super().__init__(f"{phase}: {detail}")
        self.phase = phase
        self.detail = detail


class TimedOut(NetworkError):
    """The peer took longer than policy allows."""


class SourceUnavailable(NetworkError):
    """The vmta's source address can't be bound on this host."""


class TlsFailed(NetworkError):
    """TLS was begun and did not end as required; `result` is a result type of RFC 8460 section 4.3.

    Where it `was_resuming`, the peer may only dislike our ticket: a whole handshake is worth a try. Where it
    is not `is_certain`, the connection was lost or nothing came in time, which says little of the peer's TLS.
    """

    def __init__(
        self, result: str, detail: str, *, was_resuming: bool = False, is_certain: bool = True
    ) -> None:
        super().__init__("tls", detail)
        self.result = result
        self.was_resuming = was_resuming
        self.is_certain = is_certain


class ResolveError(MailrailError):
    """A name could not be turned into hosts."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
        self.detail = detail


class ResolveTemporary(ResolveError):
    """Time-out, SERVFAIL, REFUSED: ask again later."""


class ResolvePermanent(ResolveError):
    """The domain can't receive mail; `reply` says so in SMTP's words (RFC 7505, RFC 5321 5.1).

    Where it `is_narrowed`, there are addresses, of another family than was asked for.
    """

    def __init__(self, name: str, detail: str, reply: Reply, *, is_narrowed: bool = False) -> None:
        super().__init__(name, detail)
        self.reply = reply
        self.is_narrowed = is_narrowed


class StoreError(MailrailError):
    """The store could not do what it was asked."""


class StoreFull(StoreError):
    """The map or the disk is past its watermark: new mail is refused, deliveries go on."""


class StoreUnhealthy(StoreError):
    """The environment can't be used now: a commit failed, the disk, another process owns it."""


class StoreDamaged(StoreUnhealthy):
    """What is in the environment's file is damaged, so trying again won't help."""


class PerhapsStored(StoreError):
    """Another shard was asked to store it and died before it answered; `shard` says which."""

    def __init__(self, shard: int, detail: str) -> None:
        super().__init__(f"shard {shard}: {detail}")
        self.shard = shard


class Refused(MailrailError):
    """An injection that we refuse; `reply` is what the injector is told."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply
