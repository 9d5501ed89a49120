"""A damaged store costs what stood on the damaged page, and no shard."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from engine.store.image import StoreImage
from engine.store.pages import BIG_VALUE, page_number, parse_leaf
from engine.store.records import parse_schedule_key, schedule_key
from engine.store.walk import named_tables
from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import addresses, inject
from tests.e2e.judging import copies
from tests.e2e.sink_process import SinkProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(90)]

Run = Callable[..., EngineProcess]
COUNT = 240
PAGE_BYTES = 4096


@pytest.fixture
def port(configuration: Configuration) -> int:
    """The listener of a customer with a vmta on each shard, whose mail is retried soon."""
    configuration.policies += 'retry = ["1s"]\n'
    configuration.add_customer("acme", "127.0.1.1", "127.0.1.2")
    return configuration.add_smtp(customer="acme")


def load(port: int, name: str = "d") -> dict[str, str]:
    """Inject small and large messages, which nobody takes yet; return id to recipient."""
    recipients = addresses(COUNT, *(f"{name}{number}.example" for number in range(30)))
    accepted = inject(port, "news@acme.example", recipients[: COUNT // 2], size=500)
    return accepted | inject(port, "news@acme.example", recipients[COUNT // 2 :], size=6000)


def find_page(data: Path, table: str, kind: str) -> int:
    image = StoreImage(data)
    try:
        assert image.file.newest is not None
        if kind == "root":
            return named_tables(image.file, [image.file.newest.main.root])[table].root
        leaves = [leaf.number for leaf in image.leaves[table]]
        if kind == "leaf":
            return leaves[len(leaves) // 2]
        nodes = [node for n in leaves for node in parse_leaf(image.file.read_tree_page(n))[0]]
        return next(page_number(node.data) for node in nodes if node.flags & BIG_VALUE)
    finally:
        image.close()


def overwrite(data: Path, page: int, at: int, octets: bytes) -> None:
    with data.open("r+b") as file:
        file.seek(page * PAGE_BYTES + at)
        file.write(octets)


def damage(data: Path, how: str) -> None:
    if how == "truncated":
        os.truncate(data, data.stat().st_size // 2)
    elif how == "meta":
        overwrite(data, 0, 20, b"\xff" * 40)
    elif how == "both metas":
        overwrite(data, 0, 0, bytes(2 * PAGE_BYTES))
    elif how == "message":
        overwrite(data, find_page(data, "bodies", "big"), 2000, b"\xff" * 8)
    else:
        table, kind = how.split()
        overwrite(data, find_page(data, table, kind), 0, bytes(PAGE_BYTES))


def lost_ids(engine: EngineProcess) -> set[str]:
    """Return the message ids that are reported as lost or set aside."""
    found = set()
    for line in engine.log_file.read_text(errors="replace").splitlines():
        row = json.loads(line) if line.startswith("{") else {}
        if row.get("event") in ("accepted mail lost", "damaged record set aside"):
            found.add(row["delivery"][:24])
    for path in engine.configuration.data_dir.glob("quarantine/*/lost.jsonl"):  # the log has a flood control
        found |= {json.loads(line)["id"] for line in path.read_text().splitlines()}
    return found


def judge(engine: EngineProcess, sink: SinkProcess, accepted: dict[str, str], unknown: int = 0) -> set[str]:
    """Wait until all that was accepted is delivered or reported; return recipients of what was lost.

    Args:
        unknown: how many may be lost without anything left that tells of them.
    """
    wait_until(
        lambda: all(row["state"] == "salvaged" for row in quarantine_of(engine)), 30.0, "the salvage's end"
    )
    id_of = {event["recipients"][0]: event["id"] for event in engine.events_of("accepted")}
    expected = set(accepted.values())

    def is_settled() -> bool:
        lost = lost_ids(engine)
        got = {event["recipient"] for event in engine.events_of("delivered")}
        return sum(recipient not in got and id_of[recipient] not in lost for recipient in expected) <= unknown

    wait_until(is_settled, 40.0, f"an end of each; the log ends:\n{engine.log_tail()}")
    arrived = {recipient for (_, recipient) in copies(sink.arrivals())}
    return expected - arrived


def quarantine_of(engine: EngineProcess) -> list[dict]:
    return engine.get("/status")["quarantine"]


@pytest.mark.parametrize(
    "how",
    [
        "meta",
        "both metas",
        "bodies root",
        "bodies leaf",
        "deliveries root",
        "deliveries leaf",
        "schedule root",
        "heads root",
        "message",
        "truncated",
    ],
)
def test_store_damaged_between_two_runs(
    configuration: Configuration, sink: SinkProcess, run_engine: Run, port: int, how: str
) -> None:
    engine = run_engine()
    accepted = load(port)
    engine.kill_supervisor()
    damage(configuration.data_dir / "shard-0" / "data.mdb", how)
    sink.start()
    engine = run_engine()
    missing = judge(engine, sink, accepted, COUNT // 2 if how == "truncated" else 0)
    if how not in ("truncated", "bodies leaf", "message"):
        assert not missing, "every page that holds mail is there"
    assert how == "truncated" or len(missing) < COUNT // 2
    if how != "message":
        wait_until(
            lambda: [row["state"] for row in quarantine_of(engine)] == ["salvaged"], 20.0, "the salvage's end"
        )
        (row,) = quarantine_of(engine)
        assert row["shard"] == 0
        assert how == "truncated" or row["lost"] == len(missing)
        assert "mailrail_store_quarantines_total 1" in engine.get("/metrics")
    before = {event["id"] for event in engine.events_of("accepted")}
    judge(engine, sink, load(port, "more"))
    status = engine.get("/status")
    assert all(shard["is_up"] for shard in status["shards"])
    stored = {event.get("shard", 0) for event in engine.events_of("accepted") if event["id"] not in before}
    assert stored == {0, 1}
    assert engine.stop() == 0


@pytest.mark.parametrize(
    "how", ["bodies leaf", "bodies root", "schedule root", "deliveries root", "truncated"]
)
def test_store_damaged_while_it_is_in_use(
    configuration: Configuration, sink: SinkProcess, run_engine: Run, port: int, how: str
) -> None:
    engine = run_engine()
    accepted = load(port)
    damage(configuration.data_dir / "shard-0" / "data.mdb", how)
    sink.start()
    wait_until(lambda: quarantine_of(engine), 20.0, f"quarantine; the log ends:\n{engine.log_tail()}")
    accepted |= inject(port, "news@acme.example", ["late@d1.example"])
    missing = judge(engine, sink, accepted, COUNT // 2 if how == "truncated" else 0)
    assert how == "truncated" or bool(missing) == (how == "bodies leaf")
    engine.wait_up()
    shards = engine.get("/status")["shards"]
    assert [shard["starts"] for shard in shards if shard["shard"] == 1] == [1], "the other went on"
    assert engine.stop() == 0


def spoil_indexes(directory: Path) -> int:
    """Move, alter and remove what the indexes say of every third delivery; return of how many."""
    with lmdb.open(str(directory), max_dbs=9, lock=False, map_size=1 << 30) as environment:
        schedule, heads = environment.open_db(b"schedule"), environment.open_db(b"heads")
        with environment.begin(write=True) as txn:
            entries = [bytes(key) for key in txn.cursor(db=schedule).iternext(values=False)][::3]
            for number, entry in enumerate(entries):
                queue, _, key = parse_schedule_key(entry)
                txn.delete(entry, db=schedule)
                if number % 3 == 0:
                    txn.put(schedule_key(queue, 1 << 52, key), b"", db=schedule)
                elif number % 3 == 1:
                    txn.put(entry[:-1] + bytes([entry[-1] ^ 4]), b"", db=schedule)
            for key in [bytes(key) for key in txn.cursor(db=heads).iternext(values=False)][::2]:
                txn.delete(key, db=heads)
    return len(entries)


def test_indexes_damaged_between_two_runs_mend_themselves(
    configuration: Configuration, sink: SinkProcess, run_engine: Run, port: int
) -> None:
    engine = run_engine()
    accepted = load(port)
    engine.kill_supervisor()
    spoilt = spoil_indexes(configuration.data_dir / "shard-0")
    assert spoilt > COUNT // 10
    sink.start()
    engine = run_engine()
    assert not judge(engine, sink, accepted), "nothing is stranded"
    assert not lost_ids(engine)
    assert quarantine_of(engine) == []
    assert "damaged index mended" in engine.log_file.read_text()
    assert engine.stop() == 0


def test_damaged_store_that_a_larger_number_of_shards_left(
    configuration: Configuration, sink: SinkProcess, run_engine: Run, port: int
) -> None:
    engine = run_engine()
    accepted = load(port)
    engine.kill_supervisor()
    damage(configuration.data_dir / "shard-1" / "data.mdb", "deliveries root")
    sink.start()
    configuration.engine["shards"] = 1
    engine = run_engine()
    wait_until(lambda: quarantine_of(engine), 20.0, f"quarantine; the log ends:\n{engine.log_tail()}")
    assert not judge(engine, sink, accepted)
    assert [row["shard"] for row in quarantine_of(engine)] == [1]
    assert engine.stop() == 0


def test_full_disk_or_foreign_owner_is_not_quarantined(
    configuration: Configuration, sink: SinkProcess, run_engine: Run, port: int
) -> None:
    """What another start can mend is left to it."""
    import fcntl

    engine = run_engine()
    load(port)
    engine.kill_supervisor()
    with (configuration.data_dir / "shard-0" / "owner").open("r+") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        engine = run_engine(wait=False)
        wait_until(
            lambda: "another process owns this store" in engine.log_file.read_text(),
            20.0,
            "the refusal",
        )
        assert not (configuration.data_dir / "quarantine").exists()
    engine.wait_up()
    assert not (configuration.data_dir / "quarantine").exists()
