"""Export: files that a spool listener takes, or messages with their envelopes beside them."""

import json

from engine.message.pickup import parse_pickup
from engine.store.export import ENVELOPES, Wanted, export_store, format_envelope

CONTENT = b"Subject: hi\r\n\r\nhello\r\n"


def fill_two(open_harness, make):
    harness = open_harness()
    first = make(message=CONTENT)
    harness.put(first, make("y.example", sibling_of=first, index=1))
    second = make(customer="globex", message=CONTENT)
    harness.put(second)
    harness.commit()
    harness.store.close()
    return harness.path, first, second


def test_spool_files_say_the_envelope_and_the_message(open_harness, make, tmp_path):
    path, first, _ = fill_two(open_harness, make)
    result = export_store(path, tmp_path / "out", "spool", Wanted())
    assert (result.messages, result.deliveries, result.unreadable) == (2, 3, 0)
    pickup = parse_pickup((tmp_path / "out" / f"{first.message_id.hex()}.msg").read_bytes())
    assert pickup.sender == "news@acme.example"
    assert pickup.recipients == ["user@x.example", "user@y.example"]
    assert pickup.message == CONTENT
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_eml_files_have_a_line_of_json_each(open_harness, make, tmp_path):
    path, first, second = fill_two(open_harness, make)
    export_store(path, tmp_path / "out", "eml", Wanted())
    rows = [json.loads(line) for line in (tmp_path / "out" / ENVELOPES).read_text().splitlines()]
    assert [row["id"] for row in rows] == [first.message_id.hex(), second.message_id.hex()]
    assert rows[0]["recipients"] == ["user@x.example", "user@y.example"]
    assert (tmp_path / "out" / rows[1]["file"]).read_bytes() == CONTENT


def test_customer_and_domain_choose(open_harness, make, tmp_path):
    path, _, second = fill_two(open_harness, make)
    result = export_store(path, tmp_path / "a", "spool", Wanted(customer="globex"))
    assert [each.name for each in (tmp_path / "a").iterdir()] == [f"{second.message_id.hex()}.msg"]
    assert result.messages == 1
    result = export_store(path, tmp_path / "b", "spool", Wanted(domain="y.example"))
    (only,) = (tmp_path / "b").iterdir()
    assert parse_pickup(only.read_bytes()).recipients == ["user@y.example"]
    assert (result.messages, result.deliveries) == (1, 1)


def test_what_can_not_be_read_is_counted(fill, tmp_path):
    store = fill()
    store.zero(store.page_of("bodies", "big"))
    result = export_store(store.path, tmp_path / "out", "eml", Wanted())
    assert (result.messages, result.unreadable) == (299, 1)


def test_null_sender_is_written_as_such():
    assert format_envelope("", ["a@b.example"]) == b"X-Sender: <>\r\nX-Receiver: <a@b.example>\r\n"
