"""Nothing is promised before it is on the disk, and a power cut at any instant keeps what was promised."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.client import SocketClient, Submission
from engine.store.environment import StoreOptions
from engine.store.lmdb import Store
from tests.e2e.configuration import SINK_ADDRESS, Configuration, free_port
from tests.e2e.crash.feeds import files_in_spool
from tests.e2e.crash.power_cut import Change, collect_changes, content_after_cut
from tests.e2e.crash.trace import Call, parse_trace, strace_command
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import inject, make_message
from tests.e2e.sink_process import SinkProcess
from tests.lacking import lack

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(100), pytest.mark.stranger("strace")]

EACH = 80  # messages of each feed
CUTS = 100
SHARDS = 2
_QUEUED = re.compile(rb"queued as ([0-9a-f]{24})")


@dataclass
class Promise:
    """Something that told an injector, at that position of the trace, that a message is ours."""

    at: int
    feed: str
    message_id: str


@dataclass
class Recording:
    """One run of the engine under strace."""

    calls: list[Call]
    promises: list[Promise]
    stores: list[str]
    event_logs: list[str]
    recipients: dict[str, str]  # message id to recipient
    contents: dict[str, bytes]  # of stores and event logs, at the end


@pytest.fixture(scope="module")
def found_strace() -> str:
    """The stranger fixture is for one test; this recording serves several."""
    found = shutil.which("strace")
    if found is None:
        lack("strace is missing: install the Debian package strace")
    return found


@pytest.fixture(scope="module")
def recording(found_strace: str) -> Iterator[Recording]:
    root = Path(tempfile.mkdtemp(prefix="mailrail-e2e-"))
    sink = SinkProcess(root, free_port(SINK_ADDRESS), SINK_ADDRESS)
    # Half of the mail stays in the store, so that a cut has something to lose.
    sink.start([{"at": "rcpt", "domain": "later.example", "reply": "451 4.7.1 later"}])
    try:
        yield record(root, sink, found_strace)
    finally:
        sink.close()
        shutil.rmtree(root, ignore_errors=True)


def record(root: Path, sink: SinkProcess, strace: str) -> Recording:
    configuration = Configuration(root)
    configuration.engine["shards"] = SHARDS
    configuration.routes["*"] = f"{SINK_ADDRESS}:{sink.port}"
    configuration.policies = (
        '[default]\nmax_message_rate = "unlimited"\nmax_connection_rate = "unlimited"\nretry = ["1s"]\n'
    )
    configuration.add_customer("acme", "127.0.1.1", "127.0.1.2")
    configuration.listeners.append(
        {"protocol": "socket", "path": str(configuration.socket), "customer": "acme"}
    )
    configuration.listeners.append(
        {"protocol": "spool", "path": str(configuration.spool), "customer": "acme"}
    )
    port = configuration.add_smtp(customer="acme")
    engine = EngineProcess(configuration, prefix=strace_command(strace, root / "trace"))
    try:
        engine.start()
        feed_all(configuration, port)
        time.sleep(1.5)  # retries of what was deferred
        recipients = {event["id"]: event["recipients"][0] for event in engine.events_of("accepted")}
        assert engine.stop() == 0
    finally:
        engine.close()
    calls = parse_trace(root / "trace")
    data = configuration.data_dir
    stores = [str(data / f"shard-{shard}" / "data.mdb") for shard in range(SHARDS)]
    event_logs = [str(data / "events" / f"events-{shard}.jsonl") for shard in range(SHARDS)]
    contents = {path: Path(path).read_bytes() for path in [*stores, *event_logs]}
    return Recording(calls, find_promises(calls, recipients), stores, event_logs, recipients, contents)


def feed_all(configuration: Configuration, port: int) -> None:
    """Inject by all three feeds at once, by SMTP in four sessions."""
    sender = "news@acme.example"

    def rows(feed: str) -> list[str]:
        return [f"{feed}-{n}@{'later' if n % 2 else 'now'}.example" for n in range(EACH)]

    def by_socket() -> None:
        with SocketClient(str(configuration.socket)) as client:
            submissions = (
                Submission(sender=sender, recipients=[rcpt], message=make_message(sender, rcpt, rcpt, 1500))
                for rcpt in rows("socket")
            )
            assert all(reply.is_accepted for reply in client.submit_all(submissions))

    def by_spool() -> None:
        for rcpt in rows("spool"):
            path = configuration.spool / "tmp" / f"{rcpt}.eml"
            head = f"X-Sender: <{sender}>\r\nX-Receiver: <{rcpt}>\r\n".encode()
            path.write_bytes(head + make_message(sender, rcpt, rcpt, 1500))
            path.rename(configuration.spool / "new" / path.name)
            time.sleep(0.005)

    def by_smtp(part: int) -> Callable[[], object]:
        return lambda: inject(port, sender, rows("smtp")[part::4], size=20_000)

    works = [by_socket, by_spool, *[by_smtp(part) for part in range(4)]]
    failures: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    wait_until(lambda: not files_in_spool(configuration.spool), 10, "an empty spool")


def find_promises(calls: list[Call], recipients: dict[str, str]) -> list[Promise]:
    """Return replies to injectors and unlinked spool files."""
    ids = {recipient: message_id for message_id, recipient in recipients.items()}
    promises = []
    for call in calls:
        if call.name in ("unlink", "unlinkat"):
            name = call.data.decode().rpartition("/")[2]
            if name.startswith("spool-"):
                recipient = re.match(r"(spool-\d+@\w+\.example)\.eml", name)
                assert recipient, name
                promises.append(Promise(call.begin, "spool", ids[recipient[1]]))
        elif call.path.startswith(("TCP", "UNIX")):
            feed = "smtp" if call.path.startswith("TCP") else "socket"
            promises += [
                Promise(call.begin, feed, message_id.decode()) for message_id in _QUEUED.findall(call.data)
            ]
    return promises


def test_every_promise_follows_a_finished_sync_of_its_record(recording: Recording) -> None:
    counts = {
        feed: sum(each.feed == feed for each in recording.promises) for feed in ("smtp", "socket", "spool")
    }
    assert counts == {"smtp": EACH, "socket": EACH, "spool": EACH}
    changes = collect_changes(recording.calls, recording.stores)
    durable_at = find_durable(changes, {each.message_id for each in recording.promises})
    early = [
        (each.feed, recording.recipients[each.message_id], each.at, durable_at.get(each.message_id))
        for each in recording.promises
        if durable_at.get(each.message_id, each.at) >= each.at
    ]
    assert not early, f"{len(early)} promised before they were durable: {early[:5]}"


def find_durable(changes: dict[str, list[Change]], message_ids: set[str]) -> dict[str, int]:
    """Return where in the trace the record of each message became durable.

    That is the end of the write of a meta page (through the descriptor with O_DSYNC), when all pages written
    before it had been synced before it began.
    """
    durable: dict[str, int] = {}
    for own in changes.values():
        pages: list[Change] = []
        for change in own:
            if not change.is_dsync:
                pages.append(change)
                continue
            written = b"".join(page.data or b"" for page in pages if page.safe_at <= change.begin)
            pages = [page for page in pages if page.safe_at > change.begin]
            for message_id in message_ids:
                if message_id not in durable and bytes.fromhex(message_id) in written:
                    durable[message_id] = change.end
    return durable


def test_directories_are_synced_before_the_first_promise(recording: Recording) -> None:
    """A file's name is in its directory, which fdatasync of the file does not cover."""
    first = min(each.at for each in recording.promises)
    synced = {call.path for call in recording.calls if call.name == "fsync" and call.end < first}
    for path in [*recording.stores, *recording.event_logs]:
        assert str(Path(path).parent) in synced


def test_the_trace_holds_every_octet_that_was_written(recording: Recording) -> None:
    """Else the cuts below would be made from something that never was."""
    for path, own in collect_changes(recording.calls, recording.contents).items():
        whole = [change._replace(safe_at=change.end) for change in own]
        made, real = (
            content_after_cut(whole, recording.calls[-1].end + 1, random.Random(0)),
            recording.contents[path],
        )
        differing = [at for at in range(0, len(real), 4096) if made[at : at + 4096] != real[at : at + 4096]]
        assert not differing, f"{path}: {len(made)} octets for {len(real)}, pages {differing[:5]} differ"


def test_a_power_cut_at_any_instant_keeps_what_was_promised(recording: Recording, root: Path) -> None:
    chance = random.Random(os.environ.get("CRASH_SEED", "1"))
    changes = collect_changes(recording.calls, [*recording.stores, *recording.event_logs])
    first, last = recording.promises[0].at, recording.calls[-1].end
    torn = 0
    for number in range(CUTS):
        cut = chance.randint(first, last)
        torn += any(each.begin < cut < each.safe_at for own in changes.values() for each in own)
        directory = root / f"cut-{number}"
        for path, own in changes.items():
            copy = directory / Path(path).parent.name / Path(path).name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content_after_cut(own, cut, chance))
        promised = {each.message_id for each in recording.promises if each.at < cut}
        lost = promised - read_delivered(directory) - read_stored(directory)
        assert not lost, f"cut {number} at {cut}: {len(lost)} of {len(promised)} lost: {sorted(lost)[:5]}"
        shutil.rmtree(directory)
    assert torn > CUTS // 4, "hardly any cut hit a write that was under way: they prove little"


def read_delivered(directory: Path) -> set[str]:
    """Return ids whose delivered event is on the disk, whole."""
    found = set()
    for path in directory.glob("events/*.jsonl"):
        for line in path.read_bytes().split(b"\n"):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event["event"] == "delivered":
                found.add(event["id"])
    return found


def read_stored(directory: Path) -> set[str]:
    """Return ids of all messages that the stores open with, each read whole and checked."""
    return asyncio.run(_read_stored(directory))


async def _read_stored(directory: Path) -> set[str]:
    found = set()
    for path in sorted(directory.glob("shard-*")):
        damaged: list[bytes] = []
        store = Store(
            path,
            loop=asyncio.get_running_loop(),
            options=StoreOptions(map_size_bytes=1 << 30, min_free_bytes=0, min_free_fraction=0.0),
            on_damaged=lambda key, _detail, damaged=damaged: damaged.append(key),
        )
        store.open()
        try:
            after = b""
            while rows := store.schedule_slice(after, 1000):
                for row in rows:
                    delivery = store.load(row[2])
                    if delivery is not None and delivery.message:
                        found.add(delivery.message_id.hex())
                after = row_key(rows[-1])
        finally:
            store.close()
        assert not damaged, f"{path}: damaged records {damaged[:3]}"
    return found


def row_key(row: tuple[bytes, int, bytes]) -> bytes:
    from engine.store.records import schedule_key

    return schedule_key(*row)
