"""The sink: receives on many addresses, counts, judges, answers by script.

    python -m engine.rig.sink --listen 127.0.0.2-9:2600 --control /tmp/sink.sock --report sink.json

Prints one line `{"ready": [...]}` when it listens, and its account (JSON) at SIGTERM, SIGINT or
after --seconds.

Owns: the process, its listeners and its control socket.  See receiver.py for the dialogue, tally.py for
the account, script.py for scripted replies, control.py for questions to a running sink.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import io
import json
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from engine.rig.certificate import server_context, write_certificate
from engine.rig.receiver import Receiver, SinkState
from engine.rig.script import STAGES, Script, load_script
from engine.rig.tally import Tally

BACKLOG = 4096
LOG_FLUSH_S = 0.2  # a log line is on its way to the file this soon
MAX_SECONDS = 3600.0


def expand_listen(text: str) -> list[tuple[str, int]]:
    """Turn "127.0.0.2-9:2600", "127.0.0.1:2600" or "[::1]:2600" into addresses."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    head, _, last = host.rpartition(".")
    if "-" not in last or ":" in host:
        return [(host, int(port))]
    low, _, high = last.partition("-")
    return [(f"{head}.{number}", int(port)) for number in range(int(low), int(high) + 1)]


def parse_stage_delay(text: str) -> tuple[str, float]:
    """Turn "final=0.2" into (stage, seconds)."""
    stage, _, seconds = text.partition("=")
    if stage not in STAGES:
        raise argparse.ArgumentTypeError(f"one of {', '.join(STAGES)} expected before '=', got {stage!r}")
    return stage, float(seconds)


class Sink:
    """Listeners, control socket, log and report of one sink process."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._log: io.BufferedWriter | None = None
        self._servers: list[asyncio.AbstractServer] = []
        self.state = SinkState(
            script=load_script(arguments.script) if arguments.script else None,
            delay_s=arguments.delay,
            stage_delays_s=dict(arguments.delay_at),
            hostname=arguments.hostname,
            has_pipelining=not arguments.no_pipelining,
            has_chunking=not arguments.no_chunking,
            max_message_bytes=arguments.max_message_bytes,
            save=arguments.save,
        )

    async def run(self) -> None:
        """Serve until told to stop, then report."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        with contextlib.ExitStack() as stack:
            self._prepare(stack)
            await self._listen()
            flusher = asyncio.create_task(self._flush_log())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._arguments.seconds)
            flusher.cancel()
            for server in self._servers:
                server.close()
        self._report()

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        arguments = self._arguments
        if arguments.log:
            self._log = stack.enter_context(arguments.log.open("ab", buffering=1 << 20))
            self.state.log = self._log.write
        if arguments.save:
            arguments.save.mkdir(parents=True, exist_ok=True)
        if arguments.starttls:
            if arguments.certificate:
                self.state.tls = server_context(arguments.certificate)
            else:  # made for the occasion, and gone once it is loaded
                with tempfile.TemporaryDirectory() as directory:
                    pem = write_certificate(Path(directory) / "sink.pem", arguments.hostname)
                    self.state.tls = server_context(pem)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        addresses = [address for text in self._arguments.listen for address in expand_listen(text)]
        for host, port in addresses:
            server = await loop.create_server(
                lambda: Receiver(self.state), host, port, backlog=BACKLOG, reuse_address=True
            )
            self._servers.append(server)
        if self._arguments.control:
            self._arguments.control.unlink(missing_ok=True)
            self._servers.append(
                await asyncio.start_unix_server(self._serve_control, str(self._arguments.control))
            )
        print(json.dumps({"ready": [f"{host}:{port}" for host, port in addresses]}), flush=True)

    async def _flush_log(self) -> None:
        while self._log is not None:
            await asyncio.sleep(LOG_FLUSH_S)
            self._log.flush()

    async def _serve_control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                try:
                    answer = self._answer(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        state = self.state
        match request["do"]:
            case "report":
                return state.tally.report(request.get("windows", ()))
            case "count":
                tally = state.tally
                counted = {"messages": tally.messages, "unique": len(tally.seen), "open": tally.now_open}
                return counted | {"duplicates": tally.duplicate_count, "last_at": tally.last_at}
            case "reset":
                self._reset_tally()
            case "script":
                state.script = Script(request["rules"]) if request["rules"] else None
            case "delay":
                state.delay_s = float(request["seconds"])
            case other:
                raise ValueError(f"do: report, count, reset, script or delay expected, got {other!r}")
        return {"done": True}

    def _reset_tally(self) -> None:
        """Forget what was counted; connections that are open keep their place."""
        old, new = self.state.tally, Tally()
        self.state.tally = new
        for key, link in old.links.items():
            link.peak, link.opened, link.messages = link.now_open, 0, 0
            new.links[key] = link
        new.now_open = new.peak_open = old.now_open

    def _report(self) -> None:
        text = json.dumps(self.state.tally.report(self._arguments.window), indent=1)
        if self._arguments.report:
            self._arguments.report.write_text(text + "\n")
        else:
            print(text, flush=True)


def make_parser() -> argparse.ArgumentParser:
    """Return the command line of the sink."""
    parser = argparse.ArgumentParser(prog="python -m engine.rig.sink", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--listen", action="append", required=True, metavar="ADDR:PORT", help="repeatable; 127.0.0.2-9:2600")
    add("--control", type=Path, metavar="PATH", help="unix socket for questions")
    add("--report", type=Path, metavar="FILE", help="account at the end (default: stdout)")
    add("--log", type=Path, metavar="FILE", help="one JSON line per message, connection and close")
    add("--save", type=Path, metavar="DIR", help="keep whole messages")
    add(
        "--window",
        type=float,
        action="append",
        default=[],
        metavar="S",
        help="window to judge rates in; repeatable",
    )
    add("--delay", type=float, default=0.0, metavar="S", help="each reply leaves so long after its command")
    add("--delay-at", type=parse_stage_delay, action="append", default=[], metavar="STAGE=S")
    add("--script", type=Path, metavar="FILE", help="scripted replies, see engine/rig/script.py")
    add("--starttls", action="store_true", help="offer STARTTLS")
    add(
        "--certificate", type=Path, metavar="PEM", help="key and certificate (default: made for the occasion)"
    )
    add("--no-pipelining", action="store_true")
    add("--no-chunking", action="store_true")
    add("--max-message-bytes", type=int, default=100_000_000)
    add("--hostname", default="sink.example")
    add("--seconds", type=float, default=MAX_SECONDS, help="end after so long, whatever happens")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the sink."""
    arguments = make_parser().parse_args(argv)
    socket.setdefaulttimeout(None)
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)  # millions of seen ids need no collecting
    uvloop.run(Sink(arguments).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
