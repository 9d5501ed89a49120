"""TLS reporting of one shard: off, or counting, keeping and (shard 0) sending.

Owns: when these happen; that nothing is counted while `tls_report_from` is not set.
Never: does any of it itself.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.delivery.tls_outcomes import TlsOutcomes
from engine.settings.model import Settings
from engine.shard.resolving import make_https
from engine.shard.tls_reports import TlsReports
from engine.shard.tls_tally import TallyKeeper

if TYPE_CHECKING:
    from engine.shard.build import Engine

FIRST_S = 5.0  # after a start: reports of days that are over may be due
EVERY_S = 60.0


class Reporting:
    """Runs with the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        settings = engine.model.settings.engine
        data_dir = Path(settings.data_dir)
        self._keeper = TallyKeeper(data_dir / f"shard-{engine.shard}", time.time)
        self._outcomes = TlsOutcomes(self._keeper.tally, engine.resolver.sts_of)
        self._reports: TlsReports | None = None
        if engine.shard == 0:
            poster = make_https(engine.resolver, settings)
            self._reports = TlsReports(
                data_dir, engine.resolver, poster, engine.acceptor.accept, counters=engine.counters
            )
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Go on with today's counts, and begin."""
        self._keeper.open()
        self._timer = self._engine.loop.call_later(FIRST_S, self._tick)

    def use(self, settings: Settings) -> None:
        """Count and report as these settings say."""
        is_on = settings.engine.tls_report_from != ""
        self._engine.opener.on_tls = self._outcomes.tried if is_on else None
        self._engine.dispositions.on_carried = self._outcomes.carried if is_on else None
        if self._reports is not None:
            self._reports.use(settings)

    def close(self) -> None:
        """Keep what was counted; what is being sent is sent again by the next process."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._keeper.keep()

    def _tick(self) -> None:
        self._timer = self._engine.loop.call_later(EVERY_S, self._tick)
        self._keeper.tally()  # past midnight the day that is over goes to disk
        self._keeper.keep()
        if self._reports is not None and (self._task is None or self._task.done()):
            self._task = self._engine.loop.create_task(self._reports.run())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            context = {"message": "TLS reports not sent", "exception": task.exception()}
            self._engine.loop.call_exception_handler(context)
