"""A feed of the demo as a process of its own: a plan handed over by socket or spool, at a rate.

    python -m engine.demo.feeding socket --to acme.sock --plan plan.jsonl --accepted accepted.jsonl --rate 300

The record of a message is written once it is handed over: after the socket's 250, or after the file has been
renamed into new/. Exits 1 if a message was refused.

Owns: pacing, the record.  The feed by SMTP is rig.source.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import IO

from engine.client import AsyncSocketClient
from engine.rig.job import Job, load_plan

MAX_IN_FLIGHT = 100  # by socket; the feed waits for answers then
TICK_S = 0.005


class Pace:
    """When the next message is due."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._started = time.monotonic()
        self._count = 0

    def next_delay(self) -> float:
        """Count a message; return how long it must wait still, 0 when that is less than a tick."""
        delay = self._started + self._count / self._rate_per_s - time.monotonic()
        self._count += 1
        return delay if delay > TICK_S else 0.0


class SpoolFeed:
    """Drops files into a spool directory."""

    def __init__(self, directory: Path, record: IO[bytes]) -> None:
        self._directory = directory
        self._record = record

    async def run(self, jobs: list[Job], pace: Pace) -> int:
        """Hand all jobs over; return how many were refused (a directory refuses nothing)."""
        for job in jobs:
            if delay := pace.next_delay():
                await asyncio.sleep(delay)
            self._drop(job)
        return 0

    def _drop(self, job: Job) -> None:
        fields = "".join(f"X-Receiver: {recipient}\r\n" for recipient in job.recipients)
        content = f"X-Sender: {job.sender}\r\n{fields}".encode() + job.make_content(time.monotonic())
        begun = self._directory / "tmp" / f"{job.test_id}.eml"
        begun.write_bytes(content)
        now = time.monotonic()  # before the rename: the file may be taken at once
        begun.rename(self._directory / "new" / begun.name)
        self._record.write(job.record(now))


class SocketFeed:
    """Submits over an injection socket, many in flight."""

    def __init__(self, path: Path, record: IO[bytes]) -> None:
        self._path = path
        self._record = record
        self._refused = 0

    async def run(self, jobs: list[Job], pace: Pace) -> int:
        """Hand all jobs over; return how many were refused."""
        room = asyncio.Semaphore(MAX_IN_FLIGHT)
        async with AsyncSocketClient(str(self._path)) as client, asyncio.TaskGroup() as submitting:
            for job in jobs:
                if delay := pace.next_delay():
                    await asyncio.sleep(delay)
                await room.acquire()
                submitting.create_task(self._submit(client, job, room))
        return self._refused

    async def _submit(self, client: AsyncSocketClient, job: Job, room: asyncio.Semaphore) -> None:
        reply = await client.submit(job.sender, job.recipients, job.make_content(time.monotonic()))
        room.release()
        if reply.is_accepted:
            self._record.write(job.record(time.monotonic()))
        else:
            self._refused += 1
            sys.stderr.write(f"{job.test_id}: {reply.code} {reply.enhanced} {reply.text}\n")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line of a feed."""
    parser = argparse.ArgumentParser(prog="python -m engine.demo.feeding")
    parser.add_argument("feed", choices=["socket", "spool"])
    for name in ("--to", "--plan", "--accepted"):
        parser.add_argument(name, type=Path, required=True, metavar="PATH")
    parser.add_argument("--rate", type=float, required=True, metavar="PER_S")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one feed."""
    arguments = make_parser().parse_args(argv)
    jobs = load_plan(arguments.plan)
    with arguments.accepted.open("wb") as record:
        make = SocketFeed if arguments.feed == "socket" else SpoolFeed
        feed: SocketFeed | SpoolFeed = make(arguments.to, record)
        refused = asyncio.run(feed.run(jobs, Pace(arguments.rate)))
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
