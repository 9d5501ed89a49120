"""The example for a host with 16 addresses passes `mailrail check --strict`, and is what its page says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from engine.cli.main import run
from engine.loading import Model, build_model, load_texts

EXAMPLE = Path(__file__).parents[2] / "deploy" / "example-16"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The example as it would stand in /etc/mailrail, with the key that its page has made."""
    etc = tmp_path / "etc"
    shutil.copytree(EXAMPLE, etc)
    file = etc / "mailrail.toml"
    text = file.read_text().replace("/etc/mailrail", str(etc))
    lines = ("[[customer.dkim]]", "domain =", "selector =", "key =")
    for line in lines:
        assert text.count(f"# {line}") == 1
        text = text.replace(f"# {line}", line)
    file.write_text(text)
    key = generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (etc / "acme.private").write_bytes(pem)
    return file


@pytest.fixture
def model(config: Path) -> Model:
    return build_model(load_texts(str(config)))


def test_example_passes_a_strict_check(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--strict", "--json", "-c", str(config)]) == 0
    assert json.loads(capsys.readouterr().out) == {"is_good": True, "findings": []}


def test_example_passes_where_it_stands_in_the_checkout(capsys: pytest.CaptureFixture[str]) -> None:
    file = EXAMPLE / "mailrail.toml"
    assert run(["check", "--strict", "-c", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: good\n"
    policies = [name for name, _ in load_texts(str(file)).policies]
    assert str(EXAMPLE / "policies" / "mailrail-example.toml") in policies


def test_example_signs_once_its_key_is_there(model: Model) -> None:
    assert [each.selector for each in model.settings.customers["acme"].dkim] == ["mr1"]


def test_example_has_sixteen_addresses_each_in_one_pool(model: Model) -> None:
    vmtas = model.settings.vmtas
    assert len({vmta.v4 for vmta in vmtas.values()}) == 16
    members = [member for pool in model.settings.pools.values() for member in pool.members]
    assert sorted(members) == sorted(vmtas)


def test_page_of_the_example_tells_of_every_customer_and_pool(model: Model) -> None:
    page = (EXAMPLE / "README.md").read_text()
    for name in (*model.settings.customers, *model.settings.pools):
        assert f"`{name}`" in page
    for listener in model.settings.listeners:
        assert (listener.listen or listener.path) in page
