from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_elliptic
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from engine.core.errors import ConfigError
from engine.loading import Texts, build_model, check_texts, load_shipped_policies, load_texts
from engine.policy.model import Destination
from tests.fakes.authority import Authority
from tests.fakes.submission import write_certificate

CONFIG = """\
[engine]
hostname = "mta1.example.net"
data_dir = "/var/lib/mailrail"
policies = ["{policies}"]
[[listener]]
protocol = "smtp"
listen = "127.0.0.1:2525"
customer = "acme"
[[vmta]]
name = "acme-1"
source = "203.0.113.10"
hostname = "mail1.acme.example"
[[pool]]
name = "acme"
members = {{ acme-1 = 1 }}
[[customer]]
name = "acme"
pool = "acme"
senders = ["*"]
"""
GMAIL = Destination("gmail", "provider", "gmail", "")


def write(directory: Path, *policies: str) -> str:
    (directory / "p").mkdir()
    for number, text in enumerate(policies):
        (directory / "p" / f"{number}.toml").write_text(text)
    config = directory / "mailrail.toml"
    config.write_text(CONFIG.format(policies=directory / "p"))
    return str(config)


def test_policies_are_read_after_those_that_ship_in_the_order_of_their_names(tmp_path: Path) -> None:
    texts = load_texts(write(tmp_path, "[default]\nport = 26", "[default]\nport = 27"))
    names = [Path(name).name for name, _ in texts.policies]
    assert names == [*(Path(name).name for name, _ in load_shipped_policies()), "0.toml", "1.toml"]
    assert build_model(texts).policies.effective(GMAIL).port == 27


def test_single_file_may_be_named(tmp_path: Path) -> None:
    config = write(tmp_path, "[default]\nport = 26", "[default]\nport = 27")
    Path(config).write_text(CONFIG.format(policies=tmp_path / "p" / "0.toml"))
    assert build_model(load_texts(config)).policies.effective(GMAIL).port == 26


def test_same_texts_give_the_same_model_in_another_process(tmp_path: Path) -> None:
    texts = load_texts(write(tmp_path, "[provider.gmail]\nmax_connections = 3"))
    travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(texts), type=Texts)
    (tmp_path / "p" / "0.toml").write_text("changed since")
    model = build_model(travelled)
    assert model.settings == build_model(texts).settings
    assert model.policies.effective(GMAIL).max_connections == 3


def test_default_comes_first_of_what_ships() -> None:
    names = [Path(name).name for name, _ in load_shipped_policies()]
    assert names[0] == "default.toml"
    assert names[1:] == sorted(names[1:])


@pytest.mark.parametrize(
    ("policy", "detail"),
    [
        (
            '[vmta."acme-l".default]\nport = 26',
            "[vmta.acme-l.default]: there is no vmta 'acme-l'; did you mean 'acme-1'?",
        ),
        (
            "[customer.acne.default]\nport = 26",
            "[customer.acne.default]: there is no customer 'acne'; did you mean 'acme'?",
        ),
    ],
)
def test_policy_for_a_name_that_there_is_not_is_refused(tmp_path: Path, policy: str, detail: str) -> None:
    texts = load_texts(write(tmp_path, policy))
    with pytest.raises(ConfigError) as caught:
        build_model(texts)
    assert str(caught.value) == f"{tmp_path}/p/0.toml:1: {detail}"


def test_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"m\.toml: can't read .*m\.toml: No such file"):
        load_texts(str(tmp_path / "m.toml"))


def test_policies_that_are_not_there_are_named_at_the_line_that_asks(tmp_path: Path) -> None:
    config = write(tmp_path)
    Path(config).write_text(CONFIG.format(policies=tmp_path / "absent"))
    with pytest.raises(
        ConfigError, match=r"mailrail\.toml:4: \[engine\]: key policies: can't read .*absent: No"
    ):
        load_texts(config)


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    config = write(tmp_path)
    (tmp_path / "p" / "x.toml").write_bytes(b'[default]\r\n\na = "\xff"')
    with pytest.raises(ConfigError, match=r"p/x\.toml:3: expected UTF-8, got octet 0xff"):
        load_texts(config)
    Path(config).write_bytes(b"\n\xfc = 1")
    with pytest.raises(ConfigError, match=r"mailrail\.toml:2: expected UTF-8, got octet 0xfc"):
        load_texts(config)


def test_policies_may_stand_beside_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path, "[default]\nport = 26", "[default]\nport = 27")
    Path(config).write_text(CONFIG.format(policies="p"))
    assert build_model(load_texts(config)).policies.effective(GMAIL).port == 27
    monkeypatch.chdir(tmp_path.parent)
    relative = f"{tmp_path.name}/mailrail.toml"
    assert load_texts(relative).policies[-1][0] == f"{tmp_path.name}/p/1.toml"


def test_policy_file_whose_name_can_not_be_printed_is_refused(tmp_path: Path) -> None:
    config = write(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path / "p") + b"/\xff.toml")).touch()
    with pytest.raises(ConfigError, match=r"key policies: .*not printable UTF-8: '\\udcff\.toml'"):
        load_texts(config)


def write_with_key(directory: Path, key: Path) -> str:
    config = write(directory)
    with Path(config).open("a") as file:
        file.write(f'[[customer.dkim]]\ndomain = "acme.example"\nselector = "s"\nkey = "{key}"\n')
    return config


def to_pem(key: Any, passphrase: bytes = b"") -> str:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode())


def test_dkim_keys_travel_with_the_texts(tmp_path: Path) -> None:
    key = tmp_path / "k.pem"
    config = write_with_key(tmp_path, key)
    with pytest.raises(
        ConfigError, match=r":23: \[\[customer\.dkim\]\] number 1: key key: can't read .*k\.pem: No"
    ):
        load_texts(config)
    key.write_text(to_pem(Ed25519PrivateKey.generate()))
    texts = load_texts(config)
    assert texts.keys == {str(key): key.read_text()}
    key.unlink()
    assert to_pem(build_model(texts).keys[str(key)]) == texts.keys[str(key)]


SMALL_RSA = """\
-----BEGIN RSA PRIVATE KEY-----
MIIBOgIBAAJBANIxMyxRmRp8ZdxYZfKtNEeEFXpQFEuCsnQ0TH8I081XHx1NZo2C
Ru0+B+7htRIToMjDthAktS/tAtnwIPRXHH0CAwEAAQJARTi8wJiy0j0rkpBuKqiN
8gt2w0xCEsgdGxXqJ1/x2MqCg9c0pVerckmmVW1oFQlP6fx8zv+Ru4CSgYphQyTB
BQIhAOhdkm8++aH35MAU8VtNMX3R4r2hr06VRNzb2fWWw70PAiEA55JFDFeOb2TO
o8ZMwU/eORT6S+edu2YeuX81diftZbMCIEpyOElGDuqypmpYC1/qInIiPZft5mGx
90cfdPx3Gi1HAiEAgpw5XbC0oZeWBUF/YTkO+dsfIVjN2jjK840QNkhm2YkCIGcD
QUk0wTjeRnbtDbhOLgYQng609yZIqZabEXFSQF/Z
-----END RSA PRIVATE KEY-----
"""


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (to_pem(generate_elliptic(SECP256R1())), "expected an RSA or Ed25519 private key, got"),
        (SMALL_RSA, "expected an RSA"),
        (
            Ed25519PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            .decode(),
            "expected an RSA or Ed25519 private key in PEM, got something unreadable",
        ),
        (
            to_pem(Ed25519PrivateKey.generate(), b"secret"),
            "expected a private key without a passphrase, got an encrypted one",
        ),
        ("no PEM at all", "expected a private key in PEM, or an Ed25519 seed in base64"),
        ("", "expected a private key in PEM, or an Ed25519 seed in base64"),
    ],
    ids=["elliptic", "rsa-512", "public", "encrypted", "text", "empty"],
)
def test_a_key_that_can_not_sign_is_refused_where_it_is_asked_for(
    tmp_path: Path, text: str, detail: str
) -> None:
    key = tmp_path / "k.pem"
    key.write_text(text)
    config = write_with_key(tmp_path, key)
    with pytest.raises(ConfigError) as caught:
        check_texts(load_texts(config))
    where = f"{config}:23: [[customer.dkim]] number 1"
    assert str(caught.value).startswith(where)
    assert f": key key: {key}: {detail}" in str(caught.value)


@pytest.mark.parametrize(("bits", "is_weak"), [(1024, True), (2048, False)])
def test_an_rsa_key_of_less_than_2048_bits_is_warned_of(tmp_path: Path, bits: int, is_weak: bool) -> None:
    key = tmp_path / "k.pem"
    key.write_text(to_pem(generate_rsa(65537, bits)))
    config = write_with_key(tmp_path, key)
    findings = check_texts(load_texts(config))
    assert [finding.origin for finding in findings] == ([(config, 23)] if is_weak else [])
    assert all(f"RSA key of {bits} bits" in finding.text for finding in findings)


def test_findings_cover_settings_and_policies(tmp_path: Path) -> None:
    config = write(tmp_path, '[domain."a.example"]')
    assert check_texts(load_texts(config)) == [
        ("warning", (f"{tmp_path}/p/0.toml", 1), '[domain."a.example"]: empty, so it changes nothing')
    ]


def test_password_of_a_route_is_read_with_the_texts_and_shown_nowhere(tmp_path: Path) -> None:
    config = write(tmp_path)
    file = tmp_path / "smarthost"
    route = f'"*" = {{ hosts = "smtp.example:587", user = "acme", password_file = "{file}" }}'
    Path(config).write_text(f"{Path(config).read_text()}[routes]\n{route}\n")
    with pytest.raises(
        ConfigError, match=r"mailrail\.toml:21: .*: key password_file: can't read .*smarthost: No such file"
    ):
        load_texts(config)
    file.write_text("open sesame\r\n")
    model = build_model(load_texts(config))
    assert model.settings.routes["*"].password == "open sesame"
    assert "sesame" not in repr(model.settings)
    file.write_text("two\nlines\n")
    with pytest.raises(
        ConfigError, match=r'mailrail\.toml:21: \[routes\."\*"\]: key password_file: .*printable'
    ) as caught:
        build_model(load_texts(config))
    assert "two" not in str(caught.value)


def with_certificate(directory: Path, certificate: str, key: str, header: str = "default") -> str:
    return write(directory, f'[{header}]\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n')


def test_a_client_certificate_travels_with_the_texts(tmp_path: Path) -> None:
    pem = Authority("Ours").issue("mail1.acme.example").write(tmp_path / "ours.pem")
    texts = load_texts(with_certificate(tmp_path, str(pem), str(pem), 'vmta."acme-1".default'))
    assert texts.keys == {str(pem): pem.read_text()}
    policy = build_model(texts).policies.effective(GMAIL, vmta="acme-1")
    assert (policy.tls_certificate, policy.tls_key) == (str(pem), str(pem))


def test_a_certificate_that_can_not_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    config = with_certificate(tmp_path, f"{tmp_path}/none.pem", f"{tmp_path}/none.pem")
    with pytest.raises(
        ConfigError, match=rf"toml:2: \[default\]: key tls_certificate: can't read {tmp_path}/none"
    ):
        load_texts(config)


def test_a_certificate_and_another_ones_key_are_refused(tmp_path: Path) -> None:
    ours = Authority("Ours").write(tmp_path / "ours.pem")
    other = Authority("Other").write(tmp_path / "other.pem")
    ours.write_text(ours.read_text()[ours.read_text().index("-----BEGIN CERT") :])
    config = with_certificate(tmp_path, str(ours), str(other))
    expected = (
        rf"0\.toml:2: \[default\]: key tls_certificate: {ours} and {other} are no certificate and its key"
    )
    with pytest.raises(ConfigError, match=expected):
        load_texts(config)


def test_a_ca_file_travels_with_the_texts(tmp_path: Path) -> None:
    config = write(tmp_path)
    roots = Authority("Root").write_certificate(tmp_path / "roots.pem")
    text = Path(config).read_text().replace("[[listener]]", f'tls_ca_file = "{roots}"\n[[listener]]', 1)
    Path(config).write_text(text)
    assert load_texts(config).keys == {str(roots): roots.read_text()}


@pytest.mark.parametrize("text", ["", "no certificates", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_ca_file_without_certificates_is_refused(tmp_path: Path, text: str) -> None:
    config = write(tmp_path)
    roots = tmp_path / "roots.pem"
    roots.write_text(text)
    Path(config).write_text(
        Path(config).read_text().replace("[[listener]]", f'tls_ca_file = "{roots}"\n[[listener]]', 1)
    )
    with pytest.raises(ConfigError, match=rf"mailrail\.toml:5: .*tls_ca_file: {roots}: no certificates"):
        load_texts(config)


def test_certificate_that_can_not_be_used_is_found_where_it_is_named(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    config = Path(write(tmp_path))
    named = config.read_text().replace(
        'customer = "acme"', f'customer = "acme"\ntls_certificate = "{certificate}"\ntls_key = "{key}"', 1
    )
    config.write_text(named)
    load_texts(str(config))
    config.write_text(named.replace(key, certificate))
    with pytest.raises(
        ConfigError, match=rf":9: \[\[listener\]\] number 1: key tls_certificate: {certificate} and"
    ):
        load_texts(str(config))
