from __future__ import annotations

import msgspec
import pytest

from engine.core.fields import Parser
from engine.settings import fields
from engine.settings.model import (
    Credential,
    Customer,
    DkimKey,
    EngineSettings,
    ListenerSettings,
    Pool,
    VirtualMTA,
)


@pytest.mark.parametrize(
    ("table", "struct", "filled_in"),
    [
        (fields.ENGINE, EngineSettings, set()),
        (fields.LISTENER, ListenerSettings, {"address", "port"}),
        (fields.VMTA, VirtualMTA, {"v4", "v6"}),
        (fields.POOL, Pool, set()),
        (fields.CUSTOMER, Customer, {"dkim", "credentials"}),
        (fields.DKIM, DkimKey, set()),
        (fields.CREDENTIAL, Credential, set()),
    ],
)
def test_every_attribute_has_its_key(
    table: dict[str, fields.Field], struct: type[msgspec.Struct], filled_in: set[str]
) -> None:
    attributes = {field.attribute for field in table.values()} - {"source"}
    assert attributes | filled_in == set(struct.__struct_fields__)


PARSED = [
    (
        fields.sender_pattern,
        [
            ("*", "*"),
            ("*@Acme.example", "*@acme.example"),
            ("*@*.acme.example", "*@*.acme.example"),
            ("Ann@Acme.Example", "Ann@acme.example"),
        ],
    ),
    (fields.mailbox, [("postmaster@Example.net", "postmaster@example.net")]),
    (fields.listen_address, [("[::]:25", "[::]:25"), ("0.0.0.0:25", "0.0.0.0:25")]),
    (fields.admin_listen, [("/run/a.sock", "/run/a.sock"), ("127.0.0.1:1", "127.0.0.1:1")]),
    (fields.route_hop, [("[2001:DB8::1]", "[2001:db8::1]:25"), ("Relay.Example", "relay.example:25")]),
    (fields.source_address, [("192.0.2.1", "192.0.2.1"), ("2001:DB8::1", "2001:db8::1"), ("::1", "::1")]),
    (fields.resolver_address, [("127.0.0.1", "127.0.0.1:53"), ("[::1]:5353", "[::1]:5353")]),
    (fields.mode, [("660", 0o660)]),
    (fields.weights, [({"a": 2}, {"a": 2})]),
    (fields.user, [("ann@acme.example", "ann@acme.example"), ("Ann Ö", "Ann Ö")]),
]


@pytest.mark.parametrize(
    ("parse", "raw", "value"), [(parse, *pair) for parse, pairs in PARSED for pair in pairs]
)
def test_value_is_parsed(parse: Parser, raw: object, value: object) -> None:
    assert parse(raw) == value


WRONG = [
    (fields.sender_pattern, ["acme.example", "@acme.example", "a b@acme.example", "*@*", 5]),
    (fields.mailbox, ["postmaster", "a@b@c", "<a@b.example>", None]),
    (fields.listen_address, ["localhost:25", "127.0.0.1", "127.0.0.1:0", "::1:25", "127.0.0.300:25", 25]),
    (fields.admin_listen, ["run/a.sock", "/" + "x" * 107]),
    (fields.route_hop, ["[relay.example]:25", "relay.example:65536", "relay example:25"]),
    (fields.source_address, ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "mta.example", 5]),
    (fields.mode, ["0888", 0o660, "04755"]),
    (fields.weights, [{}, ["a"]]),
    (fields.user, ["", "a\nb", "ö" * 128, 5]),
]


@pytest.mark.parametrize(("parse", "raw"), [(parse, raw) for parse, raws in WRONG for raw in raws])
def test_wrong_value_says_what_was_expected(parse: Parser, raw: object) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        parse(raw)


def test_octets_of_a_socket_path_count_not_characters() -> None:
    with pytest.raises(ValueError, match="107 octets"):
        fields.socket_path("/" + "é" * 60)
