"""Signals, exit status, limits of the process and the admin server, over a supervisor that only notes."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.errors import ConfigError, Origin
from engine.supervisor import serve as module
from engine.supervisor.serve import MAX_DESCRIPTORS, Running, serve

REFUSAL = ConfigError(Origin("mailrail.toml", 3), "no such key")


class FakeSupervisor:
    """Does what the test says; notes what was asked."""

    made: FakeSupervisor

    def __init__(self, *_: Any) -> None:
        FakeSupervisor.made = self
        self.log: list[str] = []
        self.opened = asyncio.Event()
        self.gate = asyncio.Event()  # what takes long ends with it
        self.gate.set()
        self.figures = SimpleNamespace(watch=self._watch)

    async def open(self) -> None:
        self.log.append("open")
        self.opened.set()

    async def stop(self) -> None:
        self.log.append("stop")
        await self.gate.wait()
        self.log.append("stopped")

    async def reload(self) -> None:
        self.log.append("reload")
        await self.gate.wait()
        if self.log.count("reload") == 1:
            raise REFUSAL  # it is logged by the supervisor; the engine runs on

    def kill(self) -> None:
        self.log.append("kill")

    async def _watch(self) -> None:
        self.log.append("watch")


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither shards nor the limits of this process are touched; its signal handlers come back."""
    monkeypatch.setattr(module, "Supervisor", FakeSupervisor)
    monkeypatch.setattr(module, "_raise_limits", lambda: None)
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def raise_signal(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


async def turn() -> None:
    """Let what is due be done, signals too."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(scenario: Any) -> tuple[int, list[str]]:
    """Serve, play a scenario beside it once it is open; return the exit status and what was asked."""

    async def main() -> int:
        serving = asyncio.create_task(Running("mailrail.toml", ()).run())
        await asyncio.sleep(0)
        supervisor = FakeSupervisor.made
        await supervisor.opened.wait()
        await turn()
        await scenario(supervisor)
        return await serving

    return asyncio.run(main()), FakeSupervisor.made.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_gracefully(number: signal.Signals) -> None:
    async def scenario(_supervisor: FakeSupervisor) -> None:
        raise_signal(number)

    assert run(scenario) == (0, ["open", "watch", "stop", "stopped", "kill"])


def test_a_second_signal_ends_at_once_with_status_1() -> None:
    async def scenario(supervisor: FakeSupervisor) -> None:
        supervisor.gate.clear()
        for _ in range(2):
            raise_signal(signal.SIGTERM)
            await turn()

    assert run(scenario) == (1, ["open", "watch", "stop", "kill"])


def test_a_refused_reload_leaves_it_running_and_hangups_during_one_are_one_more() -> None:
    async def scenario(supervisor: FakeSupervisor) -> None:
        supervisor.gate.clear()
        for _ in range(4):
            raise_signal(signal.SIGHUP)
            await turn()
        supervisor.gate.set()
        await turn()
        raise_signal(signal.SIGTERM)

    status, log = run(scenario)
    assert status == 0
    assert log.count("reload") == 2


def test_a_reload_by_signal_that_ends_in_a_bug_is_logged_and_the_engine_runs_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def breaks(self: FakeSupervisor) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(FakeSupervisor, "reload", breaks)
    lost: list[Any] = []

    async def scenario(_supervisor: FakeSupervisor) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
        raise_signal(signal.SIGHUP)
        await turn()
        gc.collect()  # a task whose exception nobody took tells so when it goes
        raise_signal(signal.SIGTERM)

    assert run(scenario)[0] == 0
    assert lost == []
    log = capfd.readouterr().err
    assert "reload failed" in log
    assert "a bug" in log


def test_an_end_that_comes_during_the_start_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def opens_forever(self: FakeSupervisor) -> None:
        self.opened.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(FakeSupervisor, "open", opens_forever)

    async def scenario(_supervisor: FakeSupervisor) -> None:
        raise_signal(signal.SIGTERM)

    assert run(scenario) == (0, ["stop", "stopped", "kill"])


def test_a_configuration_that_is_refused_is_exit_status_1_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuses(self: FakeSupervisor) -> None:
        raise REFUSAL

    monkeypatch.setattr(FakeSupervisor, "open", refuses)
    assert serve("mailrail.toml", ()) == 1
    assert capsys.readouterr().err == "mailrail: mailrail.toml:3: no such key\n"
    assert FakeSupervisor.made.log == ["kill"]


def test_the_admin_api_is_opened_anew_only_where_its_address_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    recorded: list[str] = []
    monkeypatch.setattr(module, "configure_log", lambda *_args, **_options: None)
    monkeypatch.setattr(module, "capture_standard_logging", lambda: None)

    async def scenario() -> None:
        running = Running("mailrail.toml", ())

        async def note(sock: str) -> None:
            opened.append(sock)

        running._admin = SimpleNamespace(open=note)  # type: ignore[assignment]
        keys = ("unix:/a", "tcp:127.0.0.1:1")
        supervisor: Any = running._supervisor
        supervisor.listeners = SimpleNamespace(
            sockets={key: SimpleNamespace(dup=lambda key=key: key) for key in keys}
        )
        supervisor.data_dir = SimpleNamespace(record_admin=recorded.append)
        engine = SimpleNamespace(log_level="info", log_format="json")
        model = SimpleNamespace(settings=SimpleNamespace(engine=engine))
        for key in (keys[0], keys[0], keys[1]):
            await running._apply(SimpleNamespace(admin=key, model=model))  # type: ignore[arg-type]
        assert opened == recorded == list(keys)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((1024, 4096), (4096, 4096)),
        ((1024, resource.RLIM_INFINITY), (MAX_DESCRIPTORS, resource.RLIM_INFINITY)),
        ((1024, MAX_DESCRIPTORS * 2), (MAX_DESCRIPTORS, MAX_DESCRIPTORS * 2)),
        ((4096, 4096), None),
    ],
)
def test_as_many_descriptors_as_the_hard_limit_allows(
    limits: tuple[int, int], wanted: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real function, on a process of which only the limits are fake
    with pytest.MonkeyPatch.context() as patch:
        told: list[tuple[int, int]] = []
        patch.setattr(resource, "getrlimit", lambda _: limits)
        patch.setattr(resource, "setrlimit", lambda _, both: told.append(both))
        module._raise_limits()
        assert told == ([wanted] if wanted else [])
