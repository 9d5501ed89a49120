"""A name server that answers as it is told: the truth, failures and lies, over UDP and TCP.

    async with FakeDNS({("example.com", "MX"): ["10 mx.example.com."]}) as server:
        ... server.port, server.questions

A value is a list of records as a zone file has them (of the type asked for; another type or owner is
written out: "mx.example.com. 300 CNAME other.example."), or one of the behaviors below. A name that is
not in the script is NXDOMAIN; a name that is there with another type only is NODATA.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

SILENT = "silent"  # never answers
GARBAGE = "garbage"  # answers with octets that are no DNS
TRUNCATED = "truncated"  # says TC over UDP, and (below) tells over TCP
SERVFAIL = "SERVFAIL"
REFUSED = "REFUSED"
NXDOMAIN = "NXDOMAIN"

TTL_S = 300
_OWNED_RECORD = re.compile(r"\S+\. \d+ [A-Z]+ ")


class FakeDNS:
    """Serves a script on a loopback port of its own, for UDP and TCP, while the context is open."""

    def __init__(
        self,
        script: Mapping[tuple[str, str], Sequence[str] | str],
        *,
        over_tcp: Mapping[tuple[str, str], Sequence[str]] | None = None,
        ttl_s: int = TTL_S,
        delay_s: Mapping[str, float] | None = None,
    ) -> None:
        """Args: over_tcp: what TRUNCATED names have; delay_s: by name, how late the answer is."""
        self.script = dict(script)
        self.questions: list[tuple[str, str]] = []
        self.port = 0
        self._over_tcp = dict(over_tcp or {})
        self._delay_s = dict(delay_s or {})
        self._ttl_s = ttl_s

    async def __aenter__(self) -> FakeDNS:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", 0)
        self.port = self._tcp.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    def count(self, name: str, record_type: str) -> int:
        """How often was this asked?"""
        return self.questions.count((name, record_type))

    def delay_of(self, name: str) -> float:
        return self._delay_s.get(name, 0.0)

    def respond(self, query: dns.message.Message, is_tcp: bool) -> bytes | None:
        question = query.question[0]
        key = (question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype))
        self.questions.append(key)
        told = self.script.get(key)
        if told is None:
            told = [] if any(name == key[0] for name, _ in self.script) else NXDOMAIN
        if told == TRUNCATED and is_tcp:
            told = self._over_tcp[key]
        if told == SILENT:
            return None
        if told == GARBAGE:
            return query.to_wire()[:2] + b"\xff" * 40
        return self._answer(query, told, question.name.to_text(), key[1])

    def _answer(
        self, query: dns.message.Message, told: Sequence[str] | str, owner: str, record_type: str
    ) -> bytes:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if told == TRUNCATED:
            response.flags |= dns.flags.TC
        elif isinstance(told, str):
            response.set_rcode(dns.rcode.from_text(told))
        else:
            for text in told:
                line = text if _OWNED_RECORD.match(text) else f"{owner} {self._ttl_s} {record_type} {text}"
                name, ttl, rdtype, rdata = line.split(" ", 3)
                response.answer.append(dns.rrset.from_text(name, int(ttl), "IN", rdtype, rdata))
        return response.to_wire(max_size=65535)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                wire = self.respond(dns.message.from_wire(await reader.readexactly(size)), is_tcp=True)
                if wire is not None:
                    writer.write(len(wire).to_bytes(2, "big") + wire)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: FakeDNS) -> None:
        self._server = server

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        query = dns.message.from_wire(data)
        wire = self._server.respond(query, is_tcp=False)
        if wire is None:
            return
        delay_s = self._server.delay_of(query.question[0].name.to_text(omit_final_dot=True))
        asyncio.get_running_loop().call_later(delay_s, self._send, wire, address)

    def _send(self, wire: bytes, address: Any) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(wire, address)


@contextmanager
def serve_names(script: dict[tuple[str, str], list[str]]) -> Iterator[FakeDNS]:
    """Run a name server in a thread of its own, in the namespace of this one."""
    server = FakeDNS(script)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
