"""An SMTP server with STARTTLS that keeps what it was told, in a thread of its own.

with serve_tls(peer, "127.0.9.1", 0) as port: ...      peer.messages, peer.lines
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path


class TlsPeer:
    """Takes everything. Lines are kept as (is_tls, line)."""

    def __init__(self, certificate: Path | None, *, offers: tuple[str, ...] = ()) -> None:
        """Args:
        certificate: key and chain; None: it has no STARTTLS.
        offers: further keywords, offered once TLS is up.
        """
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.use(certificate)
        self.offers = offers
        self.lines: list[tuple[bool, str]] = []
        self.messages: list[tuple[bool, bytes]] = []

    def use(self, certificate: Path) -> None:
        """Show this certificate from now on."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)

    @property
    def mails(self) -> list[str]:
        """The MAIL commands so far."""
        return [line for _, line in self.lines if line.upper().startswith("MAIL")]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._talk(reader, writer)
                writer.close()
                await asyncio.wait_for(writer.wait_closed(), 1.0)
        except TimeoutError:
            pass
        finally:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_tls = False
        writer.write(b"220 mx ready\r\n")
        while octets := await reader.readline():
            line = octets.decode().strip()
            self.lines.append((is_tls, line))
            verb = line[:4].upper()
            if verb == "EHLO":
                keywords = ["mx", "PIPELINING"]
                keywords += self.offers if is_tls else ["STARTTLS"] if self.context else []
                marks = ["-"] * (len(keywords) - 1) + [" "]
                writer.write("".join(f"250{m}{k}\r\n" for m, k in zip(marks, keywords, strict=True)).encode())
            elif verb == "STAR":
                writer.write(b"220 go\r\n")
                await writer.drain()
                assert self.context is not None
                await writer.start_tls(self.context)
                is_tls = True
            elif verb == "DATA":
                writer.write(b"354 go\r\n")
                await writer.drain()
                self.messages.append((is_tls, await reader.readuntil(b"\r\n.\r\n")))
                writer.write(b"250 2.0.0 taken\r\n")
            elif verb == "QUIT":
                writer.write(b"221 bye\r\n")
                await writer.drain()
                return
            else:
                writer.write(b"250 ok\r\n")


@contextlib.contextmanager
def run_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # peers that break a handshake off are what is tested
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:

        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.01)  # transports close in the next turns of the loop

        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextlib.contextmanager
def serve_tls(peer: TlsPeer, address: str, port: int) -> Iterator[int]:
    """Serve on an address; yields the port."""
    with run_in_thread() as loop:
        serving = asyncio.run_coroutine_threadsafe(asyncio.start_server(peer.serve, address, port), loop)
        server = serving.result(10)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            loop.call_soon_threadsafe(server.close)
