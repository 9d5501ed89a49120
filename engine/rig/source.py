"""The load source: SMTP sessions flat out or at a rate; what was accepted goes on record.

    python -m engine.rig.source --to 127.0.0.1:2525 --messages 20000 --sessions 50 --accepted accepted.jsonl
    python -m engine.rig.source --to 127.0.0.1:2525=news@acme.example --to 127.0.0.1:2526=shop@globex.example

Prints its account (JSON) at the end. A line {"id", "rcpt", "t", "sent"} is written to --accepted only
after 250.

Owns: the process, its pacing and its account.  See engine/rig/sender.py for the dialogue of a session.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from engine.rig.load import Load, Target
from engine.rig.sender import Sender

TICK_S = 0.005  # how often a paced load looks whether a message is due
CONNECT_PAUSE_S = 0.1  # between attempts of a session to connect again


def parse_target(text: str) -> Target:
    """Turn "host:port" or "host:port=sender@domain" into a target."""
    address, _, sender = text.partition("=")
    host, _, port = address.rpartition(":")
    return Target(host.strip("[]"), int(port), sender or "bench@source.example")


def parse_size(text: str) -> tuple[int, int]:
    """Turn "10000" or "10000:5" into (bytes, weight)."""
    size, _, weight = text.partition(":")
    return int(size), int(weight or 1)


def _same(sender: Sender) -> Sender:
    return sender


class Source:
    """Sessions, pacing and account of one source process."""

    def __init__(self, arguments: argparse.Namespace, accepted: io.BufferedWriter | None) -> None:
        self._arguments = arguments
        self._accepted = accepted
        self._load = Load(arguments, accepted.write if accepted else None)
        self._stop = asyncio.Event()

    async def run(self) -> dict[str, Any]:
        """Send the load and return the account."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        sessions = [asyncio.create_task(self._keep_session(n)) for n in range(self._arguments.sessions)]
        ticker = asyncio.create_task(self._tick())
        waiter = asyncio.create_task(self._stop.wait())
        finished = asyncio.gather(*sessions)
        ends: list[asyncio.Future[Any]] = [finished, waiter]
        await asyncio.wait(ends, timeout=self._arguments.seconds, return_when="FIRST_COMPLETED")
        self._load.is_stopped = True
        for task in (*sessions, ticker, waiter):
            task.cancel()
        await asyncio.gather(*sessions, ticker, waiter, finished, return_exceptions=True)
        return self._load.report()

    async def _keep_session(self, number: int) -> None:
        """Keep one session going until the load is done."""
        arguments = self._arguments
        target = arguments.to[number % len(arguments.to)]
        loop = asyncio.get_running_loop()
        while not self._load.is_done(target):
            sender = Sender(self._load, target, arguments)
            try:
                transport, _ = await loop.create_connection(partial(_same, sender), target.host, target.port)
            except OSError as error:
                self._load.connect_failures += 1
                if not arguments.reconnect:
                    raise SystemExit(f"{target.host}:{target.port}: {error}") from error
                await asyncio.sleep(CONNECT_PAUSE_S)
                continue
            try:
                await sender.closed
            finally:
                transport.close()
            if sender.was_lost and not arguments.reconnect:
                raise SystemExit(f"{target.host}:{target.port}: connection lost: {sender.last_reply!r}")
            if sender.was_lost:
                await asyncio.sleep(CONNECT_PAUSE_S)

    async def _tick(self) -> None:
        shown_at = flushed_at = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self._load.wake(now)
            if self._accepted is not None and now - flushed_at > 0.2:
                self._accepted.flush()
                flushed_at = now
            if self._arguments.progress and now - shown_at > 1:
                print(f"accepted {self._load.accepted:,}", file=sys.stderr, flush=True)
                shown_at = now


def make_parser() -> argparse.ArgumentParser:
    """Return the command line of the source."""
    parser = argparse.ArgumentParser(prog="python -m engine.rig.source", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--to", action="append", type=parse_target, required=True, metavar="HOST:PORT[=SENDER]")
    add("--messages", type=int, default=1000, help="how many to offer over all targets")
    add(
        "--plan", type=Path, metavar="FILE", help="the messages to send, a JSON line each (engine/rig/job.py)"
    )
    add("--sessions", type=int, default=50, help="over all targets, dealt in turn")
    add(
        "--size",
        action="append",
        type=parse_size,
        metavar="BYTES[:WEIGHT]",
        help="body size; repeatable (10000)",
    )
    add("--rate", type=float, default=0.0, metavar="PER_S", help="over all sessions; 0 is flat out")
    add("--domains", type=int, default=1, help="recipient domains d0.bench.example ...")
    add("--domain-format", default="d{}.bench.example")
    add("--recipients", type=int, default=1, help="per message, at one domain")
    add("--lockstep", action="store_true", help="no pipelining even where it is offered")
    add("--no-behind", action="store_true", help="do not write the next envelope behind the content")
    add("--bdat", action="store_true", help="BDAT LAST in the envelope's write")
    add("--tls", action="store_true", help="STARTTLS")
    add("--per-session", type=int, default=0, help="messages per connection; 0 is no limit")
    add("--reconnect", action="store_true", help="go on after lost connections and refused connects")
    add("--until-accepted", action="store_true", help="offer refused and lost messages again, under a new id")
    add("--accepted", type=Path, metavar="FILE", help="one JSON line per accepted message")
    add("--run", default=os.urandom(3).hex(), help="prefix of the ids")
    add("--helo", default="source.example")
    add("--report", type=Path, metavar="FILE", help="account at the end (default: stdout)")
    add("--progress", action="store_true", help="count on stderr each second")
    add("--seconds", type=float, default=600.0, help="end after so long, whatever happens")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the source; exit 1 if not every message was accepted."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.plan and arguments.until_accepted:
        parser.error("--until-accepted offers again under new ids, which a plan does not have")
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    accepted = arguments.accepted.open("ab", buffering=1 << 20) if arguments.accepted else None
    try:
        report = uvloop.run(_run(arguments, accepted))
    finally:
        if accepted is not None:
            accepted.close()
    text = json.dumps(report, indent=1)
    if arguments.report:
        arguments.report.write_text(text + "\n")
    else:
        print(text, flush=True)
    return 0 if report["accepted"] >= report["wanted"] else 1


async def _run(arguments: argparse.Namespace, accepted: io.BufferedWriter | None) -> dict[str, Any]:
    return await Source(arguments, accepted).run()


if __name__ == "__main__":
    sys.exit(main())
