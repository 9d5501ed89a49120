"""Messages handed over by socket or spool, flat out or at a rate, as a process of its own.

    python -m bench.feeding socket --to /var/tmp/x/inject.sock --messages 20000
    python -m bench.feeding spool --to /var/tmp/x/spool --messages 2000 --rate 300

Prints {"accepted", "first_at", "last_at"} (monotonic) and, for the spool, "dropped": when each message was
renamed into new/ (Unix seconds), by recipient. By socket a message counts when its 250 came. Spool files are
written to tmp/ before the clock starts, so that renaming is all that the load costs while it is measured.

Owns: the load.  The feed by SMTP is engine.rig.source.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.client import SocketClient, Submission
from engine.rig.prose import make_bodies, make_header

SENDER = "bench@source.example"
DOMAINS = 50
TICK_S = 0.001


def make_recipient(number: int) -> str:
    """Return the one recipient of message `number`."""
    return f"u{number}@d{number % DOMAINS}.bench.example"


def _make_messages(arguments: argparse.Namespace) -> Iterator[bytes]:
    bodies = make_bodies(arguments.size)
    for number in range(arguments.messages):
        header = make_header(f"{arguments.run}-{number}", SENDER, make_recipient(number), time.monotonic())
        yield header + bodies[number % len(bodies)]


def feed_socket(arguments: argparse.Namespace) -> dict[str, Any]:
    """Submit over some connections at once, each with many in flight."""
    messages = list(_make_messages(arguments))
    accepted = [0] * arguments.connections

    def submit(part: int) -> None:
        with SocketClient(str(arguments.to)) as client:
            numbers = range(part, arguments.messages, arguments.connections)
            rows = (
                Submission(sender=SENDER, recipients=[make_recipient(n)], message=messages[n])
                for n in numbers
            )
            accepted[part] = sum(reply.is_accepted for reply in client.submit_all(rows))

    threads = [threading.Thread(target=submit, args=(part,)) for part in range(arguments.connections)]
    first_at = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"accepted": sum(accepted), "first_at": first_at, "last_at": time.monotonic()}


def feed_spool(arguments: argparse.Namespace) -> dict[str, Any]:
    """Rename files into new/."""
    begun = []
    for number, message in enumerate(_make_messages(arguments)):
        path = arguments.to / "tmp" / f"{arguments.run}-{number}.eml"
        fields = f"X-Sender: {SENDER}\r\nX-Receiver: {make_recipient(number)}\r\n"
        path.write_bytes(fields.encode() + message)
        begun.append(path)
    dropped: dict[str, float] = {}
    first_at = time.monotonic()
    for number, path in enumerate(begun):
        if arguments.rate:
            _wait_until(first_at + number / arguments.rate)
        dropped[make_recipient(number)] = time.time()
        path.rename(arguments.to / "new" / path.name)
    return {"accepted": len(begun), "first_at": first_at, "last_at": time.monotonic(), "dropped": dropped}


def _wait_until(at: float) -> None:
    while (left := at - time.monotonic()) > 0:
        time.sleep(max(left, TICK_S))


def main(argv: list[str] | None = None) -> int:
    """Run one feed."""
    parser = argparse.ArgumentParser(prog="python -m bench.feeding", description=__doc__.split("\n")[0])
    parser.add_argument("feed", choices=["socket", "spool"])
    parser.add_argument("--to", type=Path, required=True, metavar="PATH", help="socket, or spool directory")
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=2, help="by socket")
    parser.add_argument("--rate", type=float, default=0.0, metavar="PER_S", help="by spool; 0 is flat out")
    parser.add_argument("--run", default="feed", help="prefix of the ids")
    arguments = parser.parse_args(argv)
    feeds = {"socket": feed_socket, "spool": feed_spool}
    print(json.dumps(feeds[arguments.feed](arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
