"""A shard that speaks the control protocol and carries no mail.

It notes every request in `data_dir/shard-N/heard.jsonl`, greets clients of its TCP listeners with its number
and process id, and misbehaves as `data_dir/shard-N/orders.json` says (read anew at each request):

    configure   "refuse": answer with an error     "die": exit status 3      "hang": never answer
    release     "hang": never answer
    stop        "hang": never answer
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import uvloop

from engine.control.bus import Link, open_link
from engine.control.fds import ListenerInbox
from engine.control.lifetime import end_with_parent, leave_signals_to_supervisor


class FakeShard:
    """Answers what a shard is asked."""

    def __init__(self, control_fd: int, fds_fd: int) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self.link = Link(
            {kind: self._bind(kind) for kind in ("configure", "release", "adopt", "peer", "drain", "stop")}
            | {"report": self._report, "query": self._query},
            name="supervisor",
            on_lost=lambda _link: self.end(),
        )
        self._control_fd = control_fd
        self._inbox = ListenerInbox(socket.socket(fileno=fds_fd))
        self._servers: dict[str, asyncio.AbstractServer] = {}
        self._shard = -1
        self._directory = Path()
        self._reports = 0

    async def open(self) -> None:
        await open_link(socket.socket(fileno=self._control_fd), self.link)

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _bind(self, kind: str) -> Any:
        async def handle(body: dict[str, Any]) -> Any:
            if kind == "configure":
                self._shard = body["shard"]
                self._directory = Path(
                    json.loads(os.environ["FAKE_SHARD"])["data_dir"], f"shard-{self._shard}"
                )
                self._directory.mkdir(exist_ok=True)
            self._note(kind, body)
            order = self._orders().get(kind, "")
            if order == "die":
                os._exit(3)
            if order == "hang":
                await asyncio.get_running_loop().create_future()
            if order == "refuse":
                return {"error": "told to refuse"}
            return await getattr(self, f"_{kind}")(body)

        return handle

    def _orders(self) -> dict[str, str]:
        try:
            orders: dict[str, str] = json.loads((self._directory / "orders.json").read_text())
        except FileNotFoundError:
            return {}
        return orders

    def _note(self, kind: str, body: Any) -> None:
        body = (
            {key: value for key, value in body.items() if key != "texts"} if isinstance(body, dict) else body
        )
        with (self._directory / "heard.jsonl").open("a") as file:
            file.write(json.dumps({"kind": kind, "pid": os.getpid(), "body": body}, default=_to_text) + "\n")

    # -- duties ----------------------------------------------------------------------------

    async def _configure(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = set(body["listeners"].values())
        for key in self._servers.keys() - wanted:
            self._servers.pop(key).close()
        for key in wanted - self._servers.keys():
            sock = await self._inbox.take(key)
            self._servers[key] = await asyncio.start_server(self._greet, sock=sock)
        return {}

    async def _greet(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"220 {self._shard} {os.getpid()}\r\n".encode())
        await writer.drain()
        writer.close()

    async def _release(self, body: dict[str, Any]) -> dict[str, bytes]:
        return {vmta: f"state of {vmta}".encode() for vmta in body["vmtas"]}

    async def _adopt(self, _body: dict[str, Any]) -> None:
        return None

    async def _peer(self, _body: dict[str, Any]) -> None:
        return None

    async def _drain(self, _body: dict[str, Any]) -> None:
        return None

    async def _stop(self, _body: dict[str, Any]) -> None:
        asyncio.get_running_loop().call_later(0.01, self.end)

    def _report(self, _body: Any) -> dict[str, Any]:
        self._reports += 1
        return {"counters": [["mailrail_uncertain_total", [], 1]], "gauges": [], "histograms": []}

    def _query(self, body: dict[str, Any]) -> Any:
        if body["what"] == "status":
            return {"stored": 2}
        if body["what"] == "message":
            return {"id": body["filter"]["id"], "deliveries": []} if self._shard == 1 else None
        if body["what"] == "explain":
            return {"domain": body["filter"]["domain"], "shard": self._shard}
        row = {"customer": "acme", "domain": "a.example", "messages": 1, "due_at": 100.0 + self._shard}
        return {"rows": [row], "is_whole": True}


def _to_text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--fds-fd", type=int, required=True)
    arguments = parser.parse_args()
    end_with_parent()
    leave_signals_to_supervisor()
    shard = FakeShard(arguments.control_fd, arguments.fds_fd)
    await shard.open()
    await shard.ended
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main())
