"""The source as a whole, against a receiver in the same process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.rig import source
from engine.rig.load import Target
from engine.rig.receiver import Receiver, SinkState
from engine.rig.script import Script
from engine.rig.source import Source, main, make_parser, parse_size, parse_target

LOAD = ["--size", "200", "--run", "r", "--messages", "20", "--sessions", "3"]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:25", Target("127.0.0.1", 25, "bench@source.example")),
        ("[::1]:2525=news@acme.example", Target("::1", 2525, "news@acme.example")),
    ],
)
def test_targets_have_an_address_and_may_have_a_sender(text: str, target: Target) -> None:
    assert parse_target(text) == target


def test_sizes_may_have_a_weight() -> None:
    assert (parse_size("10000"), parse_size("500:3")) == ((10_000, 1), (500, 3))


def send(
    state: SinkState, *options: str, make: Callable[[], asyncio.Protocol] | None = None
) -> dict[str, Any]:
    """Serve a receiver, send the load to it; return the source's account."""

    async def run() -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        served: list[asyncio.BaseTransport] = []

        def serve() -> asyncio.Protocol:
            protocol = make() if make is not None else Receiver(state)
            connected = protocol.connection_made
            protocol.connection_made = lambda transport: (served.append(transport), connected(transport))
            return protocol

        server = await loop.create_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        arguments = make_parser().parse_args(["--to", f"{host}:{port}", *LOAD, *options])
        record = arguments.accepted.open("ab") if arguments.accepted else None
        try:
            return await Source(arguments, record).run()
        finally:
            if record is not None:
                record.close()
            server.close()
            for transport in served:
                transport.close()
            await asyncio.sleep(0)

    return asyncio.run(run())


def test_the_account_is_what_the_receiving_end_saw(tmp_path: Path) -> None:
    state = SinkState()
    account = send(state, "--accepted", str(tmp_path / "accepted"), "--recipients", "2")
    assert (account["wanted"], account["accepted"], account["refused"]) == (20, 20, 0)
    lines = [json.loads(line) for line in (tmp_path / "accepted").read_text().splitlines()]
    recorded = {f"{line['id']} {rcpt}".encode() for line in lines for rcpt in line["rcpt"]}
    assert recorded == state.tally.seen
    assert len(recorded) == 40


def test_what_is_refused_is_offered_again_until_it_is_accepted() -> None:
    state = SinkState(script=Script([{"at": "final", "times": 5, "reply": "452 4.2.2 full"}]))
    account = send(state, "--until-accepted")
    assert (account["accepted"], account["codes"]) == (20, {"250": 20, "452": 5})


class Leaver(asyncio.Protocol):
    """Greets and closes."""

    def connection_made(self, transport: Any) -> None:
        transport.write(b"220 mx\r\n421 4.3.2 not now\r\n")
        transport.close()


def test_a_lost_connection_ends_the_source_with_the_peers_last_words() -> None:
    with pytest.raises(SystemExit, match=r"127\.0\.0\.1:\d+: connection lost: b'421 4\.3\.2 not now"):
        send(SinkState(), make=Leaver)


def test_a_source_that_may_reconnect_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CONNECT_PAUSE_S", 0.0)
    state, met = SinkState(), iter([Leaver, Leaver, Leaver])
    account = send(state, "--reconnect", make=lambda: next(met, lambda: Receiver(state))())
    assert account["accepted"] == 20


def test_the_time_that_is_over_ends_it_whatever_is_missing() -> None:
    class Silent(asyncio.Protocol):
        pass

    account = send(SinkState(), "--seconds", "0.05", make=Silent)
    assert (account["offered"], account["accepted"]) == (0, 0)


def test_a_paced_load_is_sent_whole() -> None:
    assert send(SinkState(), "--rate", "2000")["accepted"] == 20


def test_ids_of_a_plan_are_not_offered_again_under_others(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--to", "127.0.0.1:1", "--plan", str(tmp_path / "plan"), "--until-accepted"])
    assert caught.value.code == 2


@pytest.mark.parametrize(("accepted", "status"), [(20, 0), (19, 1)])
def test_exit_status_says_whether_all_was_accepted(
    accepted: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(_source: Source) -> dict[str, int]:
        return {"accepted": accepted, "wanted": 20}

    monkeypatch.setattr(Source, "run", run)
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda *_: None)
    report = tmp_path / "report.json"
    assert main(["--to", "127.0.0.1:1", "--report", str(report)]) == status
    assert json.loads(report.read_text())["accepted"] == accepted
