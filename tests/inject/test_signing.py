"""signing: which keys sign for which customer and From domain."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest

from engine.inject.signing import Signers
from engine.message.dkim import PrivateKey, load_key
from engine.settings.model import Customer, DkimKey

UNIX_NOW = 1_700_000_000.0
KEYS = {name: load_key(base64.b64encode(name.encode().ljust(32, b"-"))) for name in ("one", "two")}
MESSAGE = b"From: news@mail.acme.example\r\nSubject: hello\r\n\r\nhello\r\n"


def make_signers(keys: dict[str, PrivateKey] = KEYS, **rows: list[tuple[str, str, str]]) -> Signers:
    """Each row: domain, selector, key; by customer."""
    settings: Any = SimpleNamespace(
        customers={
            name: Customer(
                name=name,
                pool="pool",
                senders=("*",),
                dkim=tuple(DkimKey(domain=d, selector=s, key=key) for d, s, key in dkim),
            )
            for name, dkim in rows.items()
        }
    )
    return Signers(settings, keys)


def test_every_key_of_the_domain_signs() -> None:
    signers = make_signers(acme=[("acme.example", "s1", "one"), ("acme.example", "s2", "two")])
    fields = signers.sign("acme", "acme.example", MESSAGE, UNIX_NOW)
    assert fields.startswith(b"DKIM-Signature:")
    assert fields.endswith(b"\r\n")
    assert fields.count(b"DKIM-Signature:") == 2
    assert all(selector in fields for selector in (b"s=s1;", b"s=s2;", b"d=acme.example;", b"t=1700000000;"))


def test_a_key_of_a_parent_domain_signs_where_the_domain_has_none() -> None:
    signers = make_signers(acme=[("acme.example", "s1", "one")])
    assert b"d=acme.example;" in signers.sign("acme", "eu.mail.acme.example", MESSAGE, UNIX_NOW)


def test_the_nearest_domain_with_a_key_signs_alone() -> None:
    signers = make_signers(acme=[("acme.example", "s1", "one"), ("mail.acme.example", "s2", "two")])
    fields = signers.sign("acme", "mail.acme.example", MESSAGE, UNIX_NOW)
    assert b"d=mail.acme.example;" in fields
    assert fields.count(b"DKIM-Signature:") == 1


@pytest.mark.parametrize(
    ("customer", "domain"),
    [("other", "acme.example"), ("acme", "notacme.example"), ("acme", "example"), ("acme", "")],
)
def test_nobody_else_signs(customer: str, domain: str) -> None:
    signers = make_signers(acme=[("acme.example", "s1", "one")], other=[])
    assert signers.sign(customer, domain, MESSAGE, UNIX_NOW) == b""
