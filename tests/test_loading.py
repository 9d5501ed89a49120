from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.core.errors import ConfigError
from engine.loading import Texts, build_model, check_texts, load_shipped_policies, load_texts
from engine.policy.model import Destination
from tests.fakes.authority import Authority

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
    assert [Path(name).name for name, _ in texts.policies] == [
        "default.toml",
        "providers.toml",
        "0.toml",
        "1.toml",
    ]
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
    assert [Path(name).name for name, _ in load_shipped_policies()] == ["default.toml", "providers.toml"]


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
    with pytest.raises(ConfigError, match=r"mailrail\.toml:4: can't read .*absent: No such file"):
        load_texts(config)


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    config = write(tmp_path)
    (tmp_path / "p" / "x.toml").write_bytes(b'a = "\xff"')
    with pytest.raises(ConfigError, match=r"p/x\.toml: expected UTF-8, got octet 0xff"):
        load_texts(config)


def test_dkim_keys_travel_with_the_texts(tmp_path: Path) -> None:
    config = write(tmp_path)
    key = tmp_path / "k.pem"
    with Path(config).open("a") as file:
        file.write(f'[[customer.dkim]]\ndomain = "acme.example"\nselector = "s"\nkey = "{key}"\n')
    with pytest.raises(ConfigError, match=r"mailrail\.toml:23: can't read .*k\.pem: No such file"):
        load_texts(config)
    key.write_text("PEM")
    assert build_model(load_texts(config)).keys == {str(key): "PEM"}


def test_findings_cover_settings_and_policies(tmp_path: Path) -> None:
    config = write(tmp_path, '[domain."a.example"]')
    assert check_texts(load_texts(config)) == [
        ("warning", (f"{tmp_path}/p/0.toml", 1), '[domain."a.example"]: empty, so it changes nothing')
    ]


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
    with pytest.raises(ConfigError, match=rf"0\.toml:2: can't read {tmp_path}/none\.pem"):
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
