"""What is known for 24 hours longer than it is stored."""

from __future__ import annotations

import lmdb
import pytest

from engine.store.records import DamagedRecord
from engine.store.remembered import (
    LOOKS_PER_RECORD,
    Circle,
    claim_key,
    decode_remembered,
    encode_remembered,
    reply_key,
)


def test_record_is_known_until_its_time():
    raw = encode_remembered(b"k", 1000.0, b"reply")
    assert decode_remembered(b"k", raw, 999.9) == b"reply"
    assert decode_remembered(b"k", raw, 1000.0) is None
    assert decode_remembered(b"k", None, 0.0) is None


def test_one_flipped_bit_is_noticed_and_so_is_another_key():
    raw = encode_remembered(b"k", 1000.0, b"reply")
    for bit in range(8 * len(raw)):
        octets = bytearray(raw)
        octets[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedRecord):
            decode_remembered(b"k", bytes(octets), 0.0)
    with pytest.raises(DamagedRecord):
        decode_remembered(b"j", raw, 0.0)


def test_record_of_format_1_is_known_until_its_time():
    raw = (1000).to_bytes(5, "big") + b"reply"
    assert decode_remembered(b"k", raw, 999.9) == b"reply"
    assert decode_remembered(b"k", raw, 1000.0) is None


@pytest.mark.parametrize("text", ["", "a", "x" * 5000, "\udcff", "ä" * 400])
def test_any_text_makes_a_key_that_lmdb_takes(text):
    assert 0 < len(claim_key(text)) <= 511
    assert 0 < len(reply_key("acme", text)) <= 511


def test_customers_with_the_same_id_have_keys_of_their_own():
    assert reply_key("a", "1") != reply_key("b", "1")
    assert claim_key("x" * 600) != claim_key("x" * 601)


def test_expired_records_leave_as_new_ones_come(tmp_path):
    with lmdb.open(str(tmp_path), max_dbs=1, sync=False, lock=False) as env:
        table = env.open_db(b"seen")
        circle = Circle(table)
        most = 0
        for now in range(2000):
            with env.begin(write=True) as txn:
                key = (now * 7919 % 100_003).to_bytes(4, "big")
                txn.put(key, encode_remembered(key, now + 100), db=table)
                circle.sweep(txn, LOOKS_PER_RECORD, now)
                most = max(most, txn.stat(db=table)["entries"])
        assert most <= 150, "100 are alive at any time"
        with env.begin() as txn:
            alive = sum(decode_remembered(key, raw, 1999) is not None for key, raw in txn.cursor(table))
        assert alive == 100, "none left early"


def test_circle_over_an_empty_table_ends(tmp_path):
    with lmdb.open(str(tmp_path), max_dbs=1, sync=False, lock=False) as env:
        table = env.open_db(b"seen")
        circle = Circle(table)
        with env.begin(write=True) as txn:
            circle.sweep(txn, 10, 0.0)
            txn.put(b"k", encode_remembered(b"k", 5.0), db=table)
            circle.sweep(txn, 10, 6.0)
            assert txn.stat(db=table)["entries"] == 0
