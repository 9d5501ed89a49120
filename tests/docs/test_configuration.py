"""docs/configuration.md has every key of mailrail.toml, with the default that holds."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from engine.core.fields import Field
from engine.settings import fields, model
from engine.settings.parse import parse_settings
from engine.settings.password import PasswordHash
from tests.docs.pages import blocks, read_page, read_rows, section

PAGE = read_page("configuration")
SECTIONS: dict[str, tuple[dict[str, Field], Any]] = {
    "## [engine]": (fields.ENGINE, model.EngineSettings(hostname="a", data_dir="/a")),
    "## [[listener]]": (fields.LISTENER, model.ListenerSettings(name="a", protocol="smtp")),
    "## [admin]": (fields.ADMIN, model.AdminSettings()),
    "## [[vmta]]": (fields.VMTA, model.VirtualMTA(name="a", v4="", v6="", hostname="a")),
    "## [[pool]]": (fields.POOL, model.Pool(name="a", members={})),
    "## [[customer]]": (fields.CUSTOMER, model.Customer(name="a", pool="a", senders=())),
    "## [[customer.credentials]]": (
        fields.CREDENTIAL,
        model.Credential(user="a", password=PasswordHash(14, 8, 1, b"", b"")),
    ),
    "## [[customer.dkim]]": (fields.DKIM, model.DkimKey(domain="a", selector="a", key="/a")),
    "## [routes]": (fields.ROUTE, model.Route(hosts=())),
}


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_of_a_section_has_a_row_and_no_other(heading: str) -> None:
    known, _ = SECTIONS[heading]
    names = [row[0].strip("`") for row in read_rows(section(PAGE, heading))]
    assert names == list(known)


@pytest.mark.parametrize("heading", SECTIONS)
def test_defaults_are_those_of_the_code(heading: str) -> None:
    known, defaults = SECTIONS[heading]
    for name, default, _ in read_rows(section(PAGE, heading)):
        field = known[name.strip("`")]
        assert field.is_required == (default == "required"), name
        if not default.startswith("`"):
            continue  # in words: filled in from other keys
        value = tomllib.loads(f"value = {default.strip('`')}")["value"]
        expected = getattr(defaults, field.attribute)
        assert (field.parse(value) if value else type(expected)(value)) == expected, name


def test_every_section_of_the_file_has_a_heading() -> None:
    for heading in SECTIONS:
        assert section(PAGE, heading)


def test_example_of_routes_is_right() -> None:
    (example,) = blocks(section(PAGE, "## [routes]"), "toml")
    text = f'[engine]\nhostname = "a.example"\ndata_dir = "/a"\n{example}'
    assert parse_settings("mailrail.toml", text).routes["*"].hosts == ("smarthost.example.net:25",)
