"""Fixtures of the whole engine, for what it does under systemd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.configuration import Configuration
from tests.e2e.conftest import configuration, pytest_runtest_makereport, root, sink
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import addresses, inject
from tests.e2e.sink_process import SinkProcess

__all__ = ["configuration", "pytest_runtest_makereport", "root", "sink"]


@pytest.fixture
def trace_of_a_run(
    stranger: Callable[[str], str], root: Path, configuration: Configuration, sink: SinkProcess
) -> str:
    """Every system call of a start, some mail by SMTP and spool, a reload and a stop, as strace has them."""
    trace = root / "calls"
    strace = [stranger("strace"), "-f", "-qq", "-o", str(trace)]
    configuration.add_customer("acme", "127.0.1.1", "127.0.1.2")
    port = configuration.add_smtp(customer="acme")
    configuration.listeners.append(
        {"protocol": "spool", "path": str(configuration.spool), "customer": "acme"}
    )
    sink.start()
    engine = EngineProcess(configuration, prefix=strace)
    try:
        engine.start(wait=False)
        engine.wait_up(60.0)
        inject(port, "news@acme.example", addresses(40, "one.example", "two.example"))
        put_into_spool(configuration.spool)
        wait_until(lambda: sink.count() >= 41, 60.0, "mail at the sink")
        engine.reload()
        engine.stop(60.0)
    finally:
        engine.close()
    return trace.read_text(errors="replace")


def put_into_spool(spool: Path) -> None:
    """Write a message as a program would: under tmp/, then renamed."""
    draft = spool / "tmp" / "one"
    draft.write_text("X-Sender: news@acme.example\nX-Receiver: a@one.example\nSubject: spooled\n\nHello\n")
    draft.rename(spool / "new" / "one")
