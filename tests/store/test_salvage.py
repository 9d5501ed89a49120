"""Salvage: memory first, then messages; every delivery is either read or told as lost."""

import io
import re
import subprocess

import pytest

from engine.message.headers import format_received
from engine.store.records import decode_body, decode_delivery
from engine.store.salvage import command, read_items, salvage, write_items


def sort_items(store):
    items = list(salvage(store.path))
    messages = {key for item in items if item[0] == "message" for key, _ in item[2]}
    lost = {bytes.fromhex(item[1]["delivery"]) for item in items if item[0] == "lost"}
    return items, messages, lost


def test_whole_store_is_read_whole_its_memory_first(fill):
    store = fill()
    items, messages, lost = sort_items(store)
    kinds = [item[0] for item in items]
    assert kinds.index("memory") < kinds.index("message")
    assert kinds[-1] == "end"
    assert (kinds.count("seen"), kinds.count("claim")) == (100, 8)
    assert messages == set(store.deliveries)
    assert lost == set()
    assert items[-1][1] == {"messages": 300, "deliveries": 300, "lost": 0, "damage": 0, "has_past": False}
    envelope, message = decode_body(next(item[1] for item in items if item[0] == "message"))
    assert envelope.customer == "acme"
    assert message.startswith(b"xxx")


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ("bodies", "leaf"),
        ("bodies", "big"),
        ("bodies", "root"),
        ("deliveries", "leaf"),
        ("deliveries", "root"),
        ("schedule", "leaf"),
        ("heads", "root"),
    ],
)
def test_what_can_not_be_read_is_told_by_id(fill, table, kind):
    store = fill()
    store.zero(store.page_of(table, kind))
    items, messages, lost = sort_items(store)
    read, told = {key[:12] for key in messages}, [key[:12] for key in sorted(lost)]
    assert read | set(told) == {key[:12] for key in store.deliveries}
    assert not read & set(told)
    assert len(told) == len(set(told)), "each is told once"
    assert bool(lost) == (kind in ("leaf", "big") and table in ("bodies", "deliveries"))
    assert items[-1][1]["lost"] == len(lost)


def test_lost_delivery_is_told_with_its_recipients_where_they_are_known(fill):
    store = fill()
    page = store.page_of("bodies", "big")
    store.flip(page, 2000)
    items, _, (key,) = sort_items(store)
    (facts,) = [item[1] for item in items if item[0] == "lost"]
    assert facts["recipients"] == store.deliveries[key].recipients
    assert facts["id"] == key[:12].hex()
    assert facts["why"] == "body: checksum does not match"


def test_claim_of_a_message_that_is_lost_is_not_kept(fill):
    store = fill(100, 0)
    claims = {item[1]: item[2] for item in salvage(store.path) if item[0] == "claim"}
    octets = store.data.read_bytes()
    for found in re.finditer(re.escape(claims[b"claim-49"] + b"\x01"), octets):  # copies of the past, too
        store.write(found.start() + 40, b"\xff\xff")
    kept = {item[1] for item in salvage(store.path) if item[0] == "claim"}
    assert kept == {b"claim-99"}


def test_frames_carry_items_and_end_where_they_are_cut(fill):
    items = [["memory"], ["claim", b"k", b"r"], ["end", {"lost": 0}]]
    stream = io.BytesIO()
    write_items(items, stream)
    octets = stream.getvalue()
    assert list(read_items(io.BytesIO(octets))) == items
    for cut in range(len(octets)):
        found = list(read_items(io.BytesIO(octets[:cut])))
        assert found == items[: len(found)]


def test_process_of_its_own_says_the_same(fill):
    store = fill(30, 10)
    result = subprocess.run(command(store.path), capture_output=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, b"")
    assert list(read_items(io.BytesIO(result.stdout))) == list(salvage(store.path))


def test_process_says_what_it_can_not_open(tmp_path):
    result = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "data.mdb" in result.stderr


def test_body_that_names_its_only_recipient_outlives_its_delivery(open_harness, make):
    harness = open_harness("shard-0")
    lone, many = make(), make()
    for delivery, recipient in ((lone, "user@x.example"), (many, "")):
        stamp = format_received(
            "mta.example", delivery.message_id.hex(), "smtp", "h", "1.2.3.4", recipient, "now"
        )
        delivery.message = b"DKIM-Signature: a\r\n" + stamp + b"Subject: x\r\n\r\n"
        harness.put(delivery)
    harness.commit()
    with harness.store._environment.lmdb.begin(write=True) as txn:
        for delivery in (lone, many):
            txn.delete(delivery.key, db=harness.store._environment.tables.deliveries)
    harness.store.close()
    items = list(salvage(harness.path))
    (message,) = [item for item in items if item[0] == "message"]
    envelope, content = decode_body(message[1])
    ((key, record),) = message[2]
    rebuilt = decode_delivery(key, record, envelope, content)
    assert (key, rebuilt.domain, rebuilt.recipients) == (lone.key, "x.example", ["user@x.example"])
    (lost,) = [item[1] for item in items if item[0] == "lost"]
    assert (lost["id"], lost["sender"]) == (many.message_id.hex(), "news@acme.example")
