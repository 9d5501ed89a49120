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

import msgspec

from engine.inject.frames import HEAD_BYTES, Answer, Submission
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
        self._waiting: dict[int | str | None, Job] = {}
        self._room = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._refused = 0

    async def run(self, jobs: list[Job], pace: Pace) -> int:
        """Hand all jobs over; return how many were refused."""
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        answers = asyncio.create_task(self._read_answers(reader, len(jobs)))
        for job in jobs:
            if delay := pace.next_delay():
                await asyncio.sleep(delay)
            await self._room.acquire()
            self._waiting[job.test_id] = job
            payload = msgspec.msgpack.encode(_submission(job))
            writer.write(len(payload).to_bytes(HEAD_BYTES, "big") + payload)
            await writer.drain()
        await answers
        writer.close()
        return self._refused

    async def _read_answers(self, reader: asyncio.StreamReader, count: int) -> None:
        decoder = msgspec.msgpack.Decoder(Answer)
        for _ in range(count):
            length = int.from_bytes(await reader.readexactly(HEAD_BYTES), "big")
            self._take(decoder.decode(await reader.readexactly(length)))

    def _take(self, answer: Answer) -> None:
        job = self._waiting.pop(answer.id)
        self._room.release()
        if answer.code < 300:
            self._record.write(job.record(time.monotonic()))
        else:
            self._refused += 1
            sys.stderr.write(f"{answer.id}: {answer.code} {answer.enhanced} {answer.text}\n")


def _submission(job: Job) -> Submission:
    return Submission(job.test_id, job.sender, job.recipients, job.make_content(time.monotonic()))


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
