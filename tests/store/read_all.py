"""Program of a test: opens a store that may be damaged, loads all it can, says what became of it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import Harness

from engine.core.errors import StoreUnhealthy
from engine.store.records import parse_schedule_key, schedule_key


def read_all(harness: Harness) -> int:
    """Load everything in slices of the schedule; return how many deliveries were whole."""
    whole, after = 0, b""
    while slice_ := harness.store.schedule_slice(after, 7):
        for queue, due, key in slice_:
            whole += harness.store.load(key, queue, due) is not None
        after = schedule_key(*slice_[-1])
        assert parse_schedule_key(after) == slice_[-1]
    harness.commit()
    return whole


def main(path: str) -> None:
    """Print `unhealthy`, or `read`, how many were whole and how many set aside."""
    try:
        harness = Harness(Path(path))
        whole = read_all(harness)
    except StoreUnhealthy as error:
        print("unhealthy", error)
        return
    if harness.unhealthy:
        print("unhealthy", harness.unhealthy)
        return
    print("read", whole, len(harness.damaged))
    harness.store.close()


main(sys.argv[1])
