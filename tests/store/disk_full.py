"""Program of a test: puts on a disk of 8 MB until a commit fails for want of room, then removes.

Run as root in a mount namespace of its own (`unshare --mount`).
"""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import UNIX_START, Harness

from engine.core.envelope import Delivery, Envelope, MessageIds


def main(path: str) -> None:
    """Print what the failed commit was, how the store is, and that removals went on."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path], check=True)
    harness = Harness(Path(path) / "store", map_size_bytes=1 << 30)
    ids = MessageIds(0, b"full")
    envelope = Envelope("", "acme", "pool", UNIX_START, 100_000, "smtp")
    stored = []
    while not any(harness.told[-1:]):
        delivery = Delivery(ids.make(UNIX_START), 0, envelope, "x.example", ["u@x.example"], UNIX_START)
        delivery.message = b"x" * 100_000
        stored.append(delivery)
        harness.put(delivery)
        harness.run_until(lambda: len(harness.told) == len(stored))
    print(type(harness.told[-1]).__name__, harness.store.failure or "healthy")
    for delivery in stored[:-1]:
        harness.store.remove(delivery)
        harness.commit()
    assert not harness.stored_keys()
    harness.store.close()
    print("removed")


main(sys.argv[1])
