from __future__ import annotations

import json
import re
from typing import Any

import click
import pytest

from engine.cli.main import cli, run
from engine.cli.store import store
from engine.inject.accept import DRAINING


def run_json(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, Any]:
    """Run a command with --json; return its status and what it printed."""
    status = run([*argv, "--json"])
    return status, json.loads(capsys.readouterr().out)


ID = "06413f2a9c1e5b00d1a2b3c4"
STATUS = {
    "generation": 3,
    "is_draining": False,
    "started_at": 1.0,
    "shards": [{"shard": 0, "is_up": True, "pid": 7, "counts": {"messages": 4}}],
    "listeners": ["smtp:127.0.0.1:2525"],
    "counts": {"messages": 4, "ready": {"acme": 2}},
}


def test_every_command_has_json_config_and_an_example() -> None:
    commands = {name: each for name, each in cli.commands.items() if not isinstance(each, click.Group)}
    for name, command in {**commands, **store.commands}.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--config", "-c"} <= options, name
        assert "Example" in (command.help or ""), name


def test_unknown_command_and_unknown_option_are_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fly"]) == 2
    assert run(["status", "--fly"]) == 2
    assert "fly" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["queues", "--limit", "-1"], "--limit"),
        (["queues", "--limit", "0"], "--limit"),
        (["paths", "--limit", "10001"], "from 1 to 10000"),
        (["messages", "--limit", "x"], "--limit"),
        (["message", "zz"], "24 hexadecimal digits"),
        (["retry", "zz"], "24 hexadecimal digits"),
        (["drain", "--wait", "--timeout", "-1"], "--timeout"),
        (["drain", "--wait", "--timeout", "nan"], "--timeout"),
        (["drain", "--timeout", "1"], "--wait"),
        (["explain", "d.example", "--mx", "b c"], "--mx"),
        (["queues", "--customer", "\udcff"], "expected UTF-8, got '\\udcff'"),
    ],
)
def test_what_can_not_be_asked_is_usage_and_asks_nobody(
    argv: list[str], what: str, config: str, admin: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*argv, "-c", config]) == 2
    assert what in capsys.readouterr().err
    status, answer = run_json(capsys, *argv, "-c", config)
    assert status == 2
    assert what in answer["error"]
    assert admin.asked == []


def test_output_that_can_not_be_written_is_said_without_a_traceback(
    config: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert run(["check", "--json", "-c", config]) == 1
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left"):
            full.close()
    assert "mailrail: [Errno 28] No space left on device" in capfd.readouterr().err


def test_request_that_the_engine_calls_bad_is_usage(config: str, admin: Any) -> None:
    admin.answer("/queues", {"error": "unknown parameter 'pool'"}, 400)
    assert run(["queues", "--pool", "acme", "-c", config]) == 2


@pytest.mark.parametrize("messages", ["0", "-1", "3999", "1000001", "many"])
def test_demo_of_too_few_messages_is_usage_and_names_the_least(
    messages: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["demo", "--messages", messages]) == 2
    error = capsys.readouterr().err
    assert "--messages" in error
    assert messages == "many" or "4000<=x<=1000000" in error


def test_help_exits_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert run(["drain", "--help"]) == 0
    assert "mailrail drain --wait" in capsys.readouterr().out


def test_missing_configuration_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "-c", "/nowhere/mailrail.toml"]) == 1
    assert "/nowhere/mailrail.toml: can't read it: No such file" in capsys.readouterr().err


def test_configuration_comes_from_the_environment(
    config: str, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.answer("/status", STATUS)
    monkeypatch.setenv("MAILRAIL_CONFIG", config)
    assert run(["status"]) == 0


def test_no_engine_says_where_it_was_looked_for(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "-c", config]) == 1
    error = capsys.readouterr().err
    assert "admin.sock" in error
    assert "mailrail serve" in error


def test_error_is_json_where_json_was_asked_for(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, answer = run_json(capsys, "queues", "-c", config)
    assert status == 1
    assert "no engine answers" in answer["error"]


def test_status_is_bad_while_a_shard_is_down(
    config: str, admin: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.answer("/status", STATUS)
    assert run_json(capsys, "status", "-c", config) == (0, STATUS)
    admin.answer("/status", {**STATUS, "shards": [{"shard": 0, "is_up": False}]})
    assert run(["status", "-c", config]) == 1
    assert "takes no mail: 0 of 1 shards up" in capsys.readouterr().out
    admin.answer("/status", {**STATUS, "unanswered": {"0": "no answer in 2 s"}})
    assert run(["status", "-c", config]) == 1
    assert "shard 0 did not answer: no answer in 2 s" in capsys.readouterr().out


def test_criteria_and_limit_are_passed_on(
    config: str, admin: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {"queues": [{"customer": "acme", "domain": "d.example", "messages": 2}], "is_whole": False}
    admin.answer("/queues", answer)
    assert run(["queues", "-c", config, "--customer", "acme", "--limit", "1"]) == 0
    assert admin.asked == [("GET", "/queues?customer=acme&limit=1", None)]
    shown = capsys.readouterr().out
    assert "d.example" in shown
    assert "raise --limit" in shown


@pytest.mark.parametrize("what", ["queues", "paths", "messages"])
def test_nothing_to_show_is_no_error(
    what: str, config: str, admin: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.answer(f"/{what}", {what: [], "is_whole": True})
    assert run([what, "-c", config]) == 0
    assert capsys.readouterr().out == f"no {what}\n"


def test_message_that_is_gone_exits_one(config: str, admin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answer(f"/messages/{ID}", {"error": f"no shard holds message {ID}"}, 404)
    assert run(["message", ID.upper(), "-c", config]) == 1
    assert capsys.readouterr().err == f"mailrail: no shard holds message {ID}\n"


def test_refused_reload_shows_file_and_key(
    config: str, admin: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.answer("/reload", {"error": "x.toml:3: key max_conections: unknown"}, 422)
    assert run(["reload", "-c", config]) == 1
    assert "x.toml:3: key max_conections" in capsys.readouterr().err
    admin.answer("/reload", {"generation": 9})
    assert run(["reload", "-c", config]) == 0
    assert capsys.readouterr().out == "reloaded: generation 9\n"


def test_drain_waits_until_nothing_is_left(
    config: str, admin: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.cli.steer.POLL_S", 0.0)
    admin.answer("/drain", {"is_draining": True})
    admin.answer("/status", [{"counts": {"stored": left}} for left in (5, 2, 0)])
    status, answer = run_json(capsys, "drain", "--wait", "-c", config)
    assert (status, answer) == (0, {"is_draining": True, "is_empty": True, "stored": 0})
    assert admin.asked[0] == ("POST", "/drain", {"on": True})


def test_drain_that_is_not_over_in_time_exits_one(
    config: str, admin: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.cli.steer.POLL_S", 0.0)
    admin.answer("/drain", {"is_draining": True})
    admin.answer("/status", {"counts": {"stored": 5}})
    assert run(["drain", "--wait", "--timeout", "0.01", "-c", config]) == 1
    assert "5 deliveries are left" in capsys.readouterr().out


def test_drain_off(config: str, admin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answer("/drain", {"is_draining": False})
    assert run(["drain", "--off", "-c", config]) == 0
    assert admin.asked == [("POST", "/drain", {"on": False})]
    assert capsys.readouterr().out == "taking mail again\n"


@pytest.mark.parametrize("option", [["--wait"], ["--timeout", "5"]])
def test_draining_that_ends_is_not_waited_for(option: list[str], config: str, admin: Any) -> None:
    assert run(["drain", "--off", *option, "-c", config]) == 2
    assert admin.asked == []


def test_help_of_drain_names_the_reply_that_clients_get(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["drain", "--help"]) == 0
    assert set(re.findall(r"\b4\d\d\b", capsys.readouterr().out)) == {str(DRAINING.code)}


def test_explain_asks_the_engine_first(config: str, admin: Any) -> None:
    admin.answer("/explain", {"error": "there is no vmta 'nix'"}, 422)
    assert run(["explain", "d.example", "--vmta", "nix", "-c", config]) == 1
    assert admin.asked == [("GET", "/explain?domain=d.example&vmta=nix", None)]


def test_explain_without_an_engine_answers_from_the_files(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", "d.example", "--vmta", "acme-1", "-c", config]) == 0
    shown = capsys.readouterr()
    assert "from the files" in shown.err
    assert "max_connections" in shown.out
    assert "default.toml:" in shown.out


def test_explain_knows_a_domain_by_either_of_its_names(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [
        run_json(capsys, "explain", name, "--offline", "-c", config)
        for name in ("Bücher.test", "xn--bcher-kva.test")
    ]
    assert answers[0] == answers[1]
    assert answers[0][0] == 0


def test_explain_of_what_is_no_domain_is_an_error_and_asks_nobody(
    config: str, admin: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bad..dom", "not a domain!"):
        assert run(["explain", name, "-c", config]) == 1
        assert capsys.readouterr().err == f"mailrail: expected a domain name, got {name!r}\n"
    assert admin.asked == []


def test_explain_says_why_a_domain_gets_no_mail(
    config: str, admin: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, answer = run_json(capsys, "explain", "d.example", "--offline", "-c", config)
    admin.answer("/explain", {**answer, "site": "", "problem": "d.example: null MX", "paths": []})
    assert run(["explain", "d.example", "-c", config]) == 1
    assert "problem: d.example: null MX" in capsys.readouterr().out
    assert run_json(capsys, "explain", "d.example", "-c", config)[0] == 1


def test_check_names_file_and_line(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open(config, "a") as file:
        file.write('[routs]\n"*" = "127.0.0.1:25"\n')
    status, answer = run_json(capsys, "check", "-c", config)
    assert status == 1
    (finding,) = answer["findings"]
    assert (finding["severity"], finding["file"]) == ("error", config)
    assert finding["line"] > 0
    assert "routs" in finding["text"]


def test_send_without_a_listener_that_answers(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, answer = run_json(capsys, "send", "--from", "a@b.example", "--to", "u@d.example", "-c", config)
    assert status == 1
    assert "127.0.0.1:21710" in answer["error"]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"--to": "a@d.example, b@d.example"}, "'a@d.example, b@d.example': expected a local part"),
        ({"--to": "x@bad domain"}, "'x@bad domain': expected a domain name"),
        ({"--to": "Ann <a@d.example>"}, "'Ann <a@d.example>'"),
        ({"--to": "a@d.example>\r\nRCPT TO:<evil@d.example"}, r"evil@d.example': expected"),
        ({"--to": ""}, "expected local@domain"),
        ({"--from": "nobody"}, "'nobody': expected local@domain"),
        ({"--subject": "a\r\nBcc: x"}, r"expected one line, got 'a\r\nBcc: x'"),
        ({"--subject": "a\n"}, "expected one line"),
        ({"--text": "\udcfc"}, "expected UTF-8"),
    ],
)
def test_send_takes_bare_addresses_and_one_line_of_subject_only(
    given: dict[str, str], what: str, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--from": "a@b.example", "--to": "u@d.example", **given}
    argv = [each for pair in options.items() for each in pair]
    status, answer = run_json(capsys, "send", "-c", config, *argv)
    assert status == 2
    assert what in answer["error"]
    assert next(iter(given)) in answer["error"] or "UTF-8" in what


def test_send_of_the_null_sender_is_no_usage_error(config: str) -> None:
    assert run(["send", "--from", "", "--to", '"a b"@d.example', "-c", config]) == 1  # nobody listens


def test_retry_asks_for_the_message(config: str, admin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answer("/retry", {"id": ID, "due": 1, "released": 1, "under_way": 0})
    assert run(["retry", ID, "-c", config]) == 0
    assert admin.asked[-1] == ("POST", "/retry", {"id": ID})
    assert "1 due now" in capsys.readouterr().out
    admin.answer("/retry", {"error": f"no shard holds message {ID}"}, 404)
    assert run(["retry", ID, "-c", config]) == 1


def test_quarantine_is_shown_by_status(config: str, admin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"store": "/data/quarantine/shard-0-1", "shard": 0, "state": "salvaged", "lost": 3}
    admin.answer("/status", {**STATUS, "quarantine": [row]})
    assert run(["status", "-c", config]) == 0
    assert "stores in quarantine" in capsys.readouterr().out
