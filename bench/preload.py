"""A backlog straight into the store of a shard that does not run: loading a million by SMTP takes minutes.

    python -m bench.preload /var/tmp/x/data/shard-0 --messages 1000000 --domains 200000 --size 2000

Message n goes to domain n modulo `--domains`, of the name that `--domain-format` makes of that number and of
the number modulo `--sites`. Records, keys and indexes are the store's own (engine.store); only the commits
are larger than an engine's.

Owns: the load of one store; ends with it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from engine.core.envelope import Delivery, Envelope, MessageIds
from engine.rig.prose import make_bodies, make_header
from engine.store.batch import Batch
from engine.store.commit import Writer
from engine.store.environment import Environment, StoreOptions

PER_COMMIT = 4000
CUSTOMER = POOL = "bench"
SENDER = "bench@source.example"
TIMEOUT_S = 1800.0


def preload(path: Path, arguments: argparse.Namespace) -> int:
    """Write the backlog; return how many messages it has."""
    environment = Environment(path, StoreOptions())
    environment.open()
    ids = MessageIds(arguments.shard, b"load")
    bodies = make_bodies(max(arguments.size - 300, 1))
    try:
        writer = Writer(environment.tables)
        for first in range(0, arguments.messages, PER_COMMIT):
            batch = Batch()
            for number in range(first, min(first + PER_COMMIT, arguments.messages)):
                accepted_at = arguments.accepted_at or time.time() - arguments.age
                domain = _domain(number % arguments.domains, arguments)
                _put(batch, ids.make(accepted_at), accepted_at, domain, f"{arguments.run}-{number}", bodies)
            with environment.lmdb.begin(write=True) as txn:
                writer.write(txn, batch, time.time())
    finally:
        environment.close()
    return int(arguments.messages)


def _domain(number: int, arguments: argparse.Namespace) -> str:
    return str(arguments.domain_format.format(number, number % arguments.sites))


def _put(
    batch: Batch, message_id: bytes, accepted_at: float, domain: str, test_id: str, bodies: list[bytes]
) -> None:
    recipient = f"u@{domain}"
    body = bodies[message_id[6] % len(bodies)]
    message = make_header(test_id, SENDER, recipient, time.monotonic()) + body
    envelope = Envelope(SENDER, CUSTOMER, POOL, accepted_at, len(message), "smtp")
    batch.put([Delivery(message_id, 0, envelope, domain, [recipient], accepted_at)], message)


def run_preloads(paths: Sequence[Path], *options: str) -> float:
    """Load one store after the other, each in a process of its own; return the seconds that it took."""
    began = time.monotonic()
    for number, path in enumerate(paths):
        command = [sys.executable, "-m", "bench.preload", str(path), "--shard", str(number)]
        subprocess.run([*command, "--run", f"load{number}", *options], check=True, timeout=TIMEOUT_S)
    return time.monotonic() - began


def main(argv: list[str] | None = None) -> int:
    """Load one store."""
    parser = argparse.ArgumentParser(prog="python -m bench.preload", description=__doc__.split("\n")[0])
    parser.add_argument("path", type=Path, help="of the store: data_dir/shard-N")
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--domains", type=int, default=1)
    parser.add_argument("--domain-format", default="d{0}.bench.example", help="{0} the domain, {1} its site")
    parser.add_argument("--sites", type=int, default=1)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--age", type=float, default=0.0, help="seconds ago that it was accepted")
    parser.add_argument("--accepted-at", type=float, default=0.0, help="Unix UTC, instead of --age")
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--run", default="load", help="prefix of the ids")
    arguments = parser.parse_args(argv)
    preload(arguments.path, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
