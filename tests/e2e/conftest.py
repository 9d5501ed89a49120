"""The whole engine on loopback: fixtures that start it and its sink, and leave nothing behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.configuration import SINK_ADDRESS, Configuration, free_port
from tests.e2e.engine_process import EngineProcess
from tests.e2e.sink_process import SinkProcess
from tests.lacking import need_root


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory with a short name: paths of unix sockets are at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="mailrail-e2e-"))
    yield path
    is_failed = getattr(request.node, "has_failed", False)
    if not is_failed:
        shutil.rmtree(path, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep the directory of a test that failed."""
    report = yield
    if report.failed:
        item.has_failed = True  # type: ignore[attr-defined]
    return report


@pytest.fixture
def sink(root: Path) -> Iterator[SinkProcess]:
    """A sink on one address, not started."""
    process = SinkProcess(root, free_port(SINK_ADDRESS), SINK_ADDRESS)
    yield process
    process.close()


@pytest.fixture
def configuration(root: Path, sink: SinkProcess) -> Configuration:
    """Two shards, no customer; all mail is routed to the sink, without limits that a test would feel."""
    made = Configuration(root)
    made.routes["*"] = f"{SINK_ADDRESS}:{sink.port}"
    made.policies = '[default]\nmax_message_rate = "unlimited"\nmax_connection_rate = "unlimited"\n'
    return made


@pytest.fixture
def run_engine(configuration: Configuration) -> Iterator[Callable[..., EngineProcess]]:
    """Return a function that starts the engine on the configuration as it is then."""
    running: list[EngineProcess] = []

    def run(*, wait: bool = True, **options: object) -> EngineProcess:
        process = EngineProcess(configuration, **options)  # type: ignore[arg-type]
        running.append(process)
        return process.start(wait=wait)

    yield run
    for process in running:
        process.close()


@pytest.fixture
def serve_acme(
    configuration: Configuration, sink: SinkProcess, run_engine: Callable[..., EngineProcess]
) -> Callable[..., tuple[int, EngineProcess]]:
    """Return a function that starts sink and engine for one customer with one vmta and one SMTP listener.

    It takes the sink's rules and returns the listener's port, and the engine.
    """

    def serve(rules: list[dict[str, Any]] | None = None) -> tuple[int, EngineProcess]:
        configuration.add_customer("acme", "127.0.1.1")
        port = configuration.add_smtp(customer="acme")
        sink.start(rules)
        return port, run_engine()

    return serve


@pytest.fixture
def as_root() -> None:
    """Mail systems change users."""
    need_root("run a mail system")
