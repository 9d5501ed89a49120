"""Listeners that ask who it is, their certificates, proxies and users: what parses, what is refused where."""

from __future__ import annotations

import pytest

from engine.core.errors import ConfigError
from engine.settings.check import check_settings
from engine.settings.parse import parse_settings
from engine.settings.password import parse_password

HASH = "scrypt:14:8:1:MDEyMzQ1Njc4OWFiY2RlZg:" + "A" * 43
HEAD = '[engine]\nhostname = "mta1.example.net"\ndata_dir = "/data"\n'
REST = f"""
[[vmta]]
name = "v"
source = "203.0.113.10"
hostname = "mail1.acme.example"
[[pool]]
name = "p"
members = {{ v = 1 }}
[[customer]]
name = "acme"
pool = "p"
senders = ["*"]
credentials = [{{ user = "ann", password = "{HASH}" }}, {{ user = "bob@acme.example", password = "{HASH}" }}]
"""
SUBMISSION = '[[listener]]\nprotocol = "submission"\nlisten = "[::]:587"\ntls_certificate = "/c.pem"\n'


def parse(listener: str, rest: str = REST) -> object:
    return parse_settings("m", HEAD + listener + rest)


def test_submission_takes_anybody_who_proves_who_it_is() -> None:
    settings = parse_settings("m", HEAD + SUBMISSION + REST)
    [row] = settings.listeners
    assert (row.name, row.port, row.hostname) == ("submission:[::]:587", 587, "mta1.example.net")
    assert row.allow == ("0.0.0.0/0", "::/0")
    assert (row.tls_certificate, row.tls_key, row.tls_min_version) == ("/c.pem", "/c.pem", "1.2")
    users = settings.customers["acme"].credentials
    assert [each.user for each in users] == ["ann", "bob@acme.example"]
    assert users[0].password == parse_password(HASH)


def test_networks_of_proxies_and_front_ends_are_kept() -> None:
    text = SUBMISSION + 'allow = ["10.0.0.0/8"]\ntls_key = "/k.pem"\nproxy_protocol = true\n'
    settings = parse_settings(
        "m", f'{HEAD}{text}proxy_networks = ["10.0.0.1"]\nxclient_networks = ["10.0.0.2"]\n{REST}'
    )
    [row] = settings.listeners
    assert (row.allow, row.tls_key) == (("10.0.0.0/8",), "/k.pem")
    assert (row.proxy_networks, row.xclient_networks) == (("10.0.0.1/32",), ("10.0.0.2/32",))


@pytest.mark.parametrize(
    ("listener", "error"),
    [
        (
            '[[listener]]\nprotocol = "submissions"\nlisten = "[::]:465"\n',
            "m:4: [[listener]] number 1: a listener of protocol submissions needs tls_certificate",
        ),
        (
            '[[listener]]\nprotocol = "submission"\nlisten = "[::]:587"\n',
            "m:4: [[listener]] number 1: submission needs tls_certificate, or allow_plaintext_auth = true: "
            "AUTH is for TLS only",
        ),
        (
            SUBMISSION + 'customer = "acme"\n',
            "m:8: [[listener]] number 1: key customer: has no meaning for protocol submission: "
            "credentials say whose mail it is",
        ),
        (
            SUBMISSION + "trusted = true\n",
            "m:8: [[listener]] number 1: key trusted: has no meaning for protocol submission: "
            "credentials say whose mail it is",
        ),
        (
            SUBMISSION + "proxy_protocol = true\n",
            "m:8: [[listener]] number 1: key proxy_protocol: expected proxy_networks beside it",
        ),
        (
            SUBMISSION + 'proxy_networks = ["10.0.0.1"]\n',
            "m:8: [[listener]] number 1: key proxy_networks: expected proxy_protocol = true beside it",
        ),
        (
            SUBMISSION.replace("tls_certificate", "tls_key") + "allow_plaintext_auth = true\n",
            "m:7: [[listener]] number 1: key tls_key: expected tls_certificate beside it",
        ),
        (
            '[[listener]]\nprotocol = "smtp"\nlisten = "[::]:25"\nallow_plaintext_auth = true\n',
            "m:7: [[listener]] number 1: key allow_plaintext_auth has no meaning for protocol smtp",
        ),
        (
            '[[listener]]\nprotocol = "spool"\npath = "/s"\ntls_certificate = "/c"\n',
            "m:7: [[listener]] number 1: key tls_certificate has no meaning for protocol spool",
        ),
    ],
)
def test_listener_that_could_not_do_its_work_is_refused(listener: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(listener)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (
            'user = "bob@acme.example"',
            'user = "ann"',
            "key user: customer acme has a user of that name",
        ),
        ('user = "bob@acme.example"', 'user = ""', "key user: expected 1 to 255 printable characters"),
        ('user = "ann", ', "", "key user is missing"),
        (HASH, "hunter2", "key password: expected a hash as `mailrail password` prints it (scrypt:...)"),
        ('user = "ann"', 'name = "ann"', "unknown key 'name'"),
    ],
)
def test_wrong_credentials_are_named_and_no_secret_is_repeated(old: str, new: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(SUBMISSION, REST.replace(old, new, 1))
    assert error in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_number_of_credentials_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.settings.fields.MAX_CREDENTIALS", 1)
    with pytest.raises(ConfigError, match="key credentials: expected at most 1"):
        parse(SUBMISSION)


def test_credentials_that_no_listener_asks_for_are_found() -> None:
    smtp = '[[listener]]\nprotocol = "smtp"\nlisten = "[::]:25"\ncustomer = "acme"\n'
    for listener, expected in ((smtp, 1), (SUBMISSION, 0)):
        text = HEAD + listener + REST
        findings = check_settings("m", text, parse_settings("m", text))
        assert len([each for each in findings if "has credentials" in str(each)]) == expected
        assert not [each for each in findings if "has no listener" in str(each)]
