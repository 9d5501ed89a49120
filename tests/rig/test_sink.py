from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.rig.control import ask_sink
from engine.rig.processes import run_source, running_sink
from engine.rig.sink import expand_listen, make_parser

HOST = "127.0.0.31"


def test_listen_takes_a_range_of_addresses() -> None:
    assert expand_listen("127.0.0.2-4:2600") == [(f"127.0.0.{n}", 2600) for n in (2, 3, 4)]
    assert expand_listen("[::1]:2600") == [("::1", 2600)]
    assert expand_listen("127.0.0.1:25") == [("127.0.0.1", 25)]


def test_delay_at_names_a_stage() -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--listen", "127.0.0.1:1", "--delay-at", "finale=1"])


@pytest.mark.parametrize("options", [[], ["--bdat"], ["--lockstep"], ["--no-behind"], ["--tls"]])
def test_source_and_sink_agree(options: list[str], tmp_path: Path) -> None:
    port = 21600 + len(options[0] if options else "")
    accepted = tmp_path / "accepted.jsonl"
    sink = [
        "--listen",
        f"{HOST}:{port}",
        "--control",
        tmp_path / "sink.sock",
        "--report",
        tmp_path / "sink.json",
    ]
    with running_sink(*sink, "--starttls", "--log", tmp_path / "log.jsonl"):
        load = [
            "--messages",
            "200",
            "--sessions",
            "5",
            "--size",
            "3000",
            "--domains",
            "3",
            "--recipients",
            "2",
        ]
        account = run_source("--to", f"{HOST}:{port}", *load, "--accepted", accepted, *options, timeout_s=60)
        counted = ask_sink(tmp_path / "sink.sock", {"do": "count"})
    report = json.loads((tmp_path / "sink.json").read_text())
    assert account["accepted"] == 200
    assert (counted["unique"], report["unique"], report["duplicates"]) == (400, 400, 0)
    assert len(accepted.read_text().splitlines()) == 200
    arrivals = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {line["id"] for line in arrivals if line["kind"] == "message"} == {
        json.loads(line)["id"] for line in accepted.read_text().splitlines()
    }
    assert all(line["tls"] == ("--tls" in options) for line in arrivals if line["kind"] == "message")


def test_script_and_reset_reach_a_running_sink(tmp_path: Path) -> None:
    control = tmp_path / "sink.sock"
    sink = ["--listen", f"{HOST}:21650", "--control", control, "--report", tmp_path / "sink.json"]
    with running_sink(*sink):
        ask_sink(control, {"do": "script", "rules": [{"at": "final", "times": 5, "reply": "452 4.2.2 full"}]})
        load = ["--messages", "20", "--sessions", "2", "--size", "500", "--until-accepted"]
        account = run_source("--to", f"{HOST}:21650", *load, timeout_s=60)
        assert ask_sink(control, {"do": "report"})["refused"] == {"452": 5}
        ask_sink(control, {"do": "reset"})
        assert ask_sink(control, {"do": "count"})["unique"] == 0
        with pytest.raises(ValueError, match="report, count"):
            ask_sink(control, {"do": "dance"})
    assert (account["accepted"], account["refused"]) == (20, 5)


@pytest.mark.stranger("postfix")
def test_postfix_smtp_source_is_understood(stranger, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    program = stranger("smtp-source")
    report = tmp_path / "sink.json"
    with running_sink("--listen", f"{HOST}:21660", "--report", report):
        command = [
            program,
            "-d",
            "-s",
            "5",
            "-m",
            "100",
            "-l",
            "2000",
            "-f",
            "a@b.example",
            "-t",
            "u@d.example",
        ]
        subprocess.run([*command, f"inet:{HOST}:21660"], check=True, timeout=60)
    assert json.loads(report.read_text())["messages"] == 100


def test_source_without_a_peer_says_so() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "engine.rig.source", "--to", f"{HOST}:21699", "--messages", "1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert f"{HOST}:21699" in ended.stderr
