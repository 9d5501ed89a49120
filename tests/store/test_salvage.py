"""Salvage: memory first, then messages; every delivery is either read or told as lost."""

import io
import random
import re
import subprocess

import pytest

from engine.message.headers import format_received
from engine.store.image import StoreImage
from engine.store.pages import PageFile
from engine.store.records import decode_body, decode_claim, decode_delivery
from engine.store.remembered import decode_remembered, encode_remembered
from engine.store.salvage import command, read_items, salvage, write_items

PAGE_BYTES = 4096
MOST_OF_A_PAGE = 60  # deliveries that stand on one page, and so can be lost with it


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
    first = next(item for item in items if item[0] == "message")
    envelope, message = decode_body(first[2][0][0][:12], first[1])
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
    message_id = decode_claim(b"claim-49", claims[b"claim-49"])
    for found in re.finditer(re.escape(message_id + b"\x02"), octets):  # copies of the past, too
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
    ((key, record),) = message[2]
    envelope, content = decode_body(lone.message_id, message[1])
    rebuilt = decode_delivery(key, record, envelope, content)
    assert (key, rebuilt.domain, rebuilt.recipients) == (lone.key, "x.example", ["user@x.example"])
    (lost,) = [item[1] for item in items if item[0] == "lost"]
    assert (lost["id"], lost["sender"]) == (many.message_id.hex(), "news@acme.example")


FLIPS_A_SEED = 40
READS_A_PAGE = 40  # a whole store is read some 3 times over


class Reads:
    """Counts what is read of files, and ends what reads without end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.octets = 0
        self.calls = 0
        self.most = 0
        read = PageFile._pread

        def counted(file: PageFile, size: int, at: int) -> bytes:
            octets = read(file, size, at)
            self.octets += len(octets)
            self.calls += 1
            assert self.calls < self.most, "steps without end"
            assert self.octets < self.most * PAGE_BYTES, "octets without end"
            return octets

        monkeypatch.setattr(PageFile, "_pread", counted)

    def begin(self, pages: int) -> None:
        self.octets = self.calls = 0
        self.most = pages * READS_A_PAGE


def damage(octets: bytearray, chance: random.Random) -> str:
    """Alter one page in one of the ways that memory, disks and programs do; return what was done."""
    page = chance.randrange(len(octets) // PAGE_BYTES)
    at = page * PAGE_BYTES
    what = chance.randrange(6)
    if what < 3:  # single bits; of all pages, of their heads, of their tables of nodes
        for _ in range(chance.choice([1, 1, 2, 20])):
            octets[at + chance.randrange([PAGE_BYTES, 16, 160][what])] ^= 1 << chance.randrange(8)
    elif what == 3:  # a word that is a size or a page number to somebody
        place = at + chance.randrange(0, PAGE_BYTES - 8, 2)
        octets[place : place + 8] = chance.choice([b"\xff" * 8, bytes(8), chance.randbytes(8)])
    elif what == 4:  # another page in its place, under its own number: circles
        other = chance.randrange(2, len(octets) // PAGE_BYTES) * PAGE_BYTES
        octets[at + 8 : at + PAGE_BYTES] = octets[other + 8 : other + PAGE_BYTES]
    else:
        octets[at : at + PAGE_BYTES] = chance.randbytes(PAGE_BYTES)
    return f"way {what} on page {page}"


@pytest.mark.parametrize("seed", range(12))
def test_salvage_ends_whatever_is_damaged_and_invents_nothing(fill, monkeypatch, seed):
    store = fill(removed=0)
    whole = store.data.read_bytes()
    reads = Reads(monkeypatch)
    chance = random.Random(seed)
    for case in range(FLIPS_A_SEED):
        octets = bytearray(whole)
        ways = [damage(octets, chance) for _ in range(chance.choice([1, 1, 1, 5]))]
        store.data.write_bytes(octets)
        reads.begin(len(octets) // PAGE_BYTES)
        items, messages, _ = sort_items(store)
        assert items[-1][0] == "end", (case, ways)
        assert messages <= set(store.deliveries), (case, ways)
        if len(ways) == 1:
            assert len(messages) > len(store.deliveries) - MOST_OF_A_PAGE, (case, ways)


def test_bare_records_of_format_1_are_salvaged(open_harness, make):
    harness = open_harness("shard-0")
    delivery = make()
    harness.put_now(delivery, claim="one/a")
    store, expiry = harness.store, int(harness.unix_now + 100).to_bytes(5, "big")
    with store._environment.lmdb.begin(write=True) as txn:
        txn.put(b"one/a", delivery.message_id, db=store._tables.claims)
        txn.put(b"k" * 14, expiry, db=store._tables.seen)
        txn.put(b"acme\0id-1", expiry + b"m" * 12, db=store._tables.replies)
    harness.store.close()
    kept = [item[:2] for item in salvage(harness.path) if item[0] in ("claim", "seen", "reply")]
    assert kept == [["claim", b"one/a"], ["seen", b"k" * 14], ["reply", b"acme\0id-1"]]


def test_what_no_store_could_take_or_trust_is_left_out(open_harness, make, monkeypatch):
    """A key too long would fail the whole commit, and each salvage after it."""
    harness = open_harness("shard-0")
    harness.put_now(make(), idempotency="id-1", reply=b"m" * 12)
    harness.store.close()
    image_entries = StoreImage.entries
    long = b"acme\0" + b"x" * 600
    extra = [(long, encode_remembered(long, 2e9)), (b"acme\0flipped", encode_remembered(b"acme\0other", 2e9))]

    def entries(image, table):
        return [*image_entries(image, table), *extra] if table == "replies" else image_entries(image, table)

    monkeypatch.setattr(StoreImage, "entries", entries)
    kept = [item for item in salvage(harness.path) if item[0] == "reply"]
    assert [item[1] for item in kept] == [b"acme\0id-1"]
    assert decode_remembered(kept[0][1], kept[0][2], harness.unix_now) == b"m" * 12


def displace(harness, key, other):
    with harness.store._environment.lmdb.begin(write=True) as txn:
        table = harness.store._environment.tables.deliveries
        record = txn.get(key, db=table)
        txn.delete(key, db=table)
        txn.put(other, record, db=table)


@pytest.mark.parametrize("bit", [0, 9, 30, 80, 111])
def test_record_under_a_key_with_one_flipped_bit_is_given_its_own_message(open_harness, make, bit):
    harness = open_harness("shard-0")
    deliveries = [make(f"d{number}.example", message=b"for %d" % number) for number in range(8)]
    for delivery in deliveries:
        harness.put(delivery)
    harness.commit()
    key = deliveries[3].key
    other = (int.from_bytes(key, "big") ^ 1 << bit).to_bytes(len(key), "big")
    displace(harness, key, other)
    harness.store.close()
    items, messages, lost = sort_items(harness)
    assert messages == {each.key for each in deliveries}
    assert lost == set()
    (item,) = [item for item in items if item[0] == "message" and item[2][0][0] == key]
    assert decode_body(key[:12], item[1])[1] == b"for 3"


def test_record_under_an_altered_key_whose_message_is_gone_is_told_by_its_recipients(open_harness, make):
    harness = open_harness("shard-0")
    delivery = make()
    harness.put_now(delivery)
    displace(harness, delivery.key, delivery.key[:-1] + b"\x01")
    with harness.store._environment.lmdb.begin(write=True) as txn:
        txn.delete(delivery.message_id, db=harness.store._environment.tables.bodies)
    harness.store.close()
    items, messages, lost = sort_items(harness)
    assert (messages, lost) == (set(), {delivery.key})
    (facts,) = [item[1] for item in items if item[0] == "lost"]
    assert (facts["recipients"], facts["why"]) == (delivery.recipients, "it has no body")
