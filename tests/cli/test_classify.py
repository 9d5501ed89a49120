"""`mailrail classify`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.cli.classify import MAX_LINE_BYTES, read_lines
from engine.cli.main import cli

CONFIG = """
[engine]
hostname = "mta.example.net"
data_dir = "/nowhere"
policies = ["{policies}"]

[[listener]]
protocol = "smtp"
listen = "127.0.0.1:2525"
customer = "acme"

[[vmta]]
name = "acme-1"
source = "127.0.0.11"
hostname = "mail1.acme.example"

[[pool]]
name = "acme"
members = {{ acme-1 = 1 }}

[[customer]]
name = "acme"
pool = "acme"
senders = ["*@acme.example"]

[[customer.dkim]]
domain = "acme.example"
selector = "s"
key = "/not/for/us.pem"
"""
RULE = '[[classify]]\nname = "mine"\nmatch = "zebra"\ncategory = "greylisted"\nsamples = ["451 zebra"]\n'


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAILRAIL_CONFIG", raising=False)


def run(text: str | bytes, *options: str) -> Result:
    return CliRunner().invoke(cli, ["classify", *options], input=text)


def answers(text: str | bytes, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(text, "--json", *options).stdout.splitlines()]


def test_reply_gets_category_rule_and_action_without_a_configuration() -> None:
    result = run("452 4.2.2 mailbox full\n")
    assert result.exit_code == 0
    assert result.output.split() == [
        "quota-issues", "quota", "retry_slower", "452", "4.2.2", "mailbox", "full"
    ]  # fmt: skip


def test_json_is_one_object_a_line() -> None:
    (answer,) = answers("550 5.1.1 <a@b.example>: User unknown")
    assert answer == {
        "line": 1,
        "response": "550 5.1.1 <a@b.example>: User unknown",
        "code": 550,
        "enhanced": "5.1.1",
        "category": "bad-mailbox",
        "rule": "no-such-mailbox",
        "basis": "text",
        "action": "suppress",
    }


def test_action_that_comes_later_is_told_with_its_attempt() -> None:
    (answer,) = answers("450 4.1.1 User unknown")
    assert (answer["action"], answer["later_action"], answer["later_attempt"]) == ("retry", "give_up", 6)
    assert "retry, give_up at attempt 6" in run("450 4.1.1 User unknown").output


def test_lines_of_json_have_response_and_provider_and_whatever_else() -> None:
    rows = (
        '{"response": "550 hm", "provider": "gmail", "label": 1}\n{"response": "421 hm", "provider": null}\n'
    )
    first, second = answers(rows)
    assert (first["response"], first["provider"], first["category"]) == ("550 hm", "gmail", "bad-mailbox")
    assert (second["category"], "provider" in second) == ("temporary-system", False)


@pytest.mark.parametrize(
    ("line", "category"),
    [
        ("hm", "other"),
        ("550-5.7.1 you are\\n550 5.7.1 blocked using zen.spamhaus.org", "spam-block"),
        ("550-no such user here", "bad-mailbox"),
        ("552 Das Postfach des Empfängers ist voll", "quota-issues"),
        (b"552 Das Postfach des Empf\xe4ngers ist voll", "quota-issues"),
        (b"\xef\xbb\xbf552 mailbox full", "quota-issues"),
        (b"\x00\x01\xff", "other"),
        ("550", "bad-mailbox"),
        ("   451 later   ", "temporary-system"),
        ('{"response": "550-you are\\nblocked using zen.spamhaus.org"}', "spam-block"),
        ('{"response": ""}', "other"),
    ],
)
def test_odd_input_is_classified_all_the_same(line: str | bytes, category: str) -> None:
    assert [each["category"] for each in answers(line)] == [category]


def test_empty_lines_are_left_out_and_counted() -> None:
    assert [each["line"] for each in answers("\n\n451 later\r\n\r\n550 no\n")] == [3, 5]
    assert answers("") == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"response": "550', "truncated"),
        ('{"x": ' + "[" * 60_000 + "]", "recursion"),
        ('{"reply": "550"}', "`response`"),
        ('{"response": 550}', "Expected `str`"),
        ('{"response": "x", "provider": 5}', "Expected `str | null`"),
        (b'{"response": "\xff"}', "utf-8"),
    ],
)
def test_broken_json_is_named_with_its_line_and_the_rest_goes_on(line: str | bytes, reason: str) -> None:
    octets = line if isinstance(line, bytes) else line.encode()
    result = run(b"451 later\n" + octets + b"\n550 user unknown\n")
    assert result.exit_code == 1
    assert 'standard input:2: expected an object of JSON with a "response"' in result.stderr
    assert reason in result.stderr
    assert len(result.stdout.splitlines()) == 2
    rows = answers(b"451 later\n" + octets + b"\n550 user unknown\n")
    assert [each["line"] for each in rows] == [1, 2, 3]
    assert "standard input:2" in rows[1]["error"]


def test_line_without_end_is_bounded() -> None:
    stream = io.BytesIO(b"550 " + b"x" * (5 * MAX_LINE_BYTES) + b"\n451 later\n")
    first, second = read_lines(stream)
    assert (len(first.octets), first.is_whole) == (MAX_LINE_BYTES, False)
    assert (second.number, second.octets) == (2, b"451 later")
    result = run(b'{"response": "' + b"x" * MAX_LINE_BYTES + b'"}')
    assert result.exit_code == 1
    assert "1: expected an object of JSON of at most 65,536 octets, got a longer line" in result.stderr


def test_files_are_read_one_after_the_other_and_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("451 later\n")
    (tmp_path / "b").write_text("{\n")
    result = run("", str(tmp_path / "a"), str(tmp_path / "b"))
    assert result.exit_code == 1
    assert f"{tmp_path}/b:1: expected" in result.stderr
    assert run("", str(tmp_path / "c")).exit_code == 1


def test_configuration_brings_its_policies_and_no_key_is_read(tmp_path: Path) -> None:
    policies, config = tmp_path / "p.toml", tmp_path / "mailrail.toml"
    policies.write_text(RULE)
    config.write_text(CONFIG.format(policies=policies))
    assert answers("451 zebra", "-c", str(config))[0]["rule"] == "mine"
    assert answers("451 zebra")[0]["category"] == "temporary-system"


def test_wrong_rule_is_named_with_file_and_line(tmp_path: Path) -> None:
    policies, config = tmp_path / "p.toml", tmp_path / "mailrail.toml"
    policies.write_text(RULE.replace("zebra", "zebra("))
    config.write_text(CONFIG.format(policies=policies))
    from engine.cli.main import run as run_main

    assert run_main(["classify", "-c", str(config)]) == 1


def test_configuration_that_was_named_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    from engine.cli.main import run as run_main

    assert run_main(["classify", "-c", "/not/there.toml"]) == 1
    assert "/not/there.toml" in capsys.readouterr().err
