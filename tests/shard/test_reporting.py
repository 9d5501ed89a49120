"""When TLS outcomes are counted, kept and sent."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from engine.net.sts import NOTHING
from engine.security.tally import NO_POLICY, day_of, import_tally
from engine.settings.parse import parse_settings
from engine.shard.reporting import Reporting
from engine.telemetry.metrics import Counters

SENDER = """
[[vmta]]
name = "v"
source = "192.0.2.1"
hostname = "v.acme.example"
[[pool]]
name = "p"
members = { v = 1 }
[[customer]]
name = "acme"
pool = "p"
senders = ["*"]
"""


def settings(tmp_path: Any, more: str = "") -> Any:
    head = f'[engine]\nhostname = "mta.example"\ndata_dir = "{tmp_path}"\n{more}'
    return parse_settings("mailrail.toml", head + SENDER)


def make(tmp_path: Any, shard: int = 0) -> tuple[Reporting, Any]:
    (tmp_path / f"shard-{shard}").mkdir(exist_ok=True)
    engine: Any = SimpleNamespace(
        shard=shard,
        model=SimpleNamespace(settings=settings(tmp_path)),
        loop=asyncio.get_running_loop(),
        resolver=SimpleNamespace(sts_of=lambda domain: NOTHING),
        acceptor=SimpleNamespace(accept=None),
        counters=Counters(),
        opener=SimpleNamespace(on_tls=None),
        dispositions=SimpleNamespace(on_carried=None),
    )
    return Reporting(engine), engine


def test_nothing_is_counted_unless_reports_are_configured(tmp_path):
    async def scenario():
        reporting, engine = make(tmp_path)
        reporting.use(settings(tmp_path))
        assert (engine.opener.on_tls, engine.dispositions.on_carried) == (None, None)
        reporting.use(settings(tmp_path, 'tls_report_from = "tls@acme.example"\n'))
        assert engine.opener.on_tls is not None
        assert engine.dispositions.on_carried is not None
        reporting.use(settings(tmp_path))  # a reload takes it back
        assert engine.opener.on_tls is None

    asyncio.run(scenario())


@pytest.mark.parametrize("shard", [0, 1])
def test_what_was_counted_is_on_disk_at_the_end(tmp_path, shard):
    async def scenario():
        reporting, _ = make(tmp_path, shard)
        reporting.open()
        reporting._keeper.tally().succeed("a.example", NO_POLICY)
        reporting.close()

    day = day_of(time.time())
    asyncio.run(scenario())
    (file,) = tmp_path.glob(f"shard-{shard}/tls-*.tally")
    assert file.name in (f"tls-{day}.tally", f"tls-{day + 1}.tally")
    assert list(import_tally(file.read_bytes())) == ["a.example"]
