"""The alert with which a handshake of a client fails, sent: the client learns why.

OpenSSL writes it (RFC 8446 section 6.2: protocol_version, handshake_failure), but asyncio and uvloop close
the connection without looking for it, and the client sees nothing but an end. So it is written to the socket
itself, the moment the handshake fails; nothing else is on its way then.

Owns: how the alert comes out; stand-ins for a shared context, which know whose handshake it is (as in
    net.handshake: no parameter of the loop's would tell).
Never: does a handshake, closes anything.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator

MAX_STAND_INS = 64  # kept for the next handshake: one costs 0.09 ms to make


class TellingObject(ssl.SSLObject):
    """The server's end of a session, which sends its alert where the handshake fails."""

    last_words: tuple[ssl.MemoryBIO, int] | None = None  # where OpenSSL writes, and the socket

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if self.last_words is not None:
                outgoing, descriptor = self.last_words
                alert = outgoing.read()
                if alert:
                    with contextlib.suppress(OSError):  # it has gone, or takes nothing
                        os.write(descriptor, alert)
            raise
        self.last_words = None  # the descriptor is another's, one day


class _StandIn(ssl.SSLContext):
    """Passed to the loop instead of the shared context; makes that context's object, for one socket."""

    shared: ssl.SSLContext
    descriptor: int

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = self.shared.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(made, TellingObject):
            made.last_words = outgoing, self.descriptor
        return made


_stand_ins: list[_StandIn] = []


@contextlib.contextmanager
def telling(shared: ssl.SSLContext, descriptor: int) -> Iterator[ssl.SSLContext]:
    """Lend a context for the handshake on that socket, of which the client is told if it fails."""
    found = _stand_ins.pop() if _stand_ins else _StandIn(ssl.PROTOCOL_TLS_SERVER)
    found.shared, found.descriptor = shared, descriptor
    try:
        yield found
    finally:
        del found.shared, found.descriptor
        if len(_stand_ins) < MAX_STAND_INS:
            _stand_ins.append(found)
