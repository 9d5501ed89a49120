"""TLS reports: each domain that asks for them is told once a day how our sessions with it went.

Shard 0 sends for all, some time in the first four hours of the next day. What has been sent is on record
(`tls-DAY.done` below data_dir, a line for each domain and URI), so a restart sends nothing twice that was
done, and what failed is tried hourly for a day (RFC 8460 section 5.5).

Owns: when a day is reported, what of it is done.
Never: counts, words a report (security.report).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.core.errors import ResolveTemporary
from engine.core.reply import Reply
from engine.inject.context import Accept, FeedContext
from engine.net.https import FetchFailed
from engine.security.report import MEDIA_TYPE, Report, build_report, mailbox_of, make_message, parse_record
from engine.security.tally import DAY_S, DomainCounts, day_of
from engine.shard.tls_tally import collect, days_before, forget
from engine.telemetry.log import Log
from engine.telemetry.metrics import Counters

if TYPE_CHECKING:
    from engine.settings.model import Settings

FIRST_S = 600.0  # by then every shard has written what it counted before midnight
SPREAD_S = 4 * 3600.0 - FIRST_S  # RFC 8460 section 4.1: not all senders at once
RETRY_S = 3600.0
GIVE_UP_S = 86_400.0
AT_ONCE = 10  # domains: each a question to DNS and perhaps a request

log = Log("tls_reports")


class TextsOf(Protocol):
    """What is needed of the resolver."""

    async def texts(self, name: str) -> list[str]: ...


class Poster(Protocol):
    """What is needed of an https client."""

    async def post(self, url: str, octets: bytes, media_type: str) -> None: ...


class TlsReports:
    """Sends the reports of days that are over."""

    def __init__(
        self,
        data_dir: Path,
        resolver: TextsOf,
        poster: Poster,
        accept: Accept,
        unix_clock: Callable[[], float] = time.time,
        counters: Counters | None = None,
    ) -> None:
        self._counters = counters or Counters()
        self._data_dir = data_dir
        self._resolver = resolver
        self._poster = poster
        self._accept = accept
        self._unix = unix_clock
        self._next_at: dict[int, float] = {}
        self._hostname = self._sender = self._customer = ""

    def use(self, settings: Settings) -> None:
        """Report as these settings say."""
        self._hostname = settings.engine.hostname
        self._sender = settings.engine.tls_report_from
        customer = settings.sender_of(self._sender) if self._sender else None
        self._customer = customer.name if customer is not None else ""

    async def run(self) -> None:
        """Send what is due now."""
        now = self._unix()
        if not self._customer:
            return
        for day in days_before(self._data_dir, day_of(now)):
            at = self._next_at.setdefault(day, self.due_at(day))
            if at <= now:
                await self._report_day(day, now)

    def due_at(self, day: int) -> float:
        """Return when a day is reported first: the same after a restart, another on each host and day."""
        digest = hashlib.sha256(f"{self._hostname} {day}".encode()).digest()
        return (day + 1) * DAY_S + FIRST_S + int.from_bytes(digest[:4], "big") / 2**32 * SPREAD_S

    async def _report_day(self, day: int, now: float) -> None:
        record = self._data_dir / f"tls-{day}.done"
        record.touch(0o600)
        lines = record.read_text().splitlines()
        begun_at = float(lines[0]) if lines else now
        if not lines:
            record.write_text(f"{now:.0f}\n")
        done = set(lines[1:])
        tally = collect(self._data_dir, day)
        domains = list(tally)
        is_whole = True
        for start in range(0, len(domains), AT_ONCE):
            told = await asyncio.gather(
                *(
                    self._report_domain(day, domain, tally.of(domain), done, record)
                    for domain in domains[start : start + AT_ONCE]
                )
            )
            is_whole = is_whole and all(told)
        if is_whole or now - begun_at >= GIVE_UP_S:
            log.info("day reported", day=day, domains=len(domains), whole=is_whole)
            forget(self._data_dir, day)
            record.unlink(missing_ok=True)
            self._next_at.pop(day, None)
        else:
            self._next_at[day] = now + RETRY_S

    async def _report_domain(
        self, day: int, domain: str, counts: DomainCounts, done: set[str], record: Path
    ) -> bool:
        """Send what is not yet done; return whether nothing is left."""
        try:
            uris = parse_record(await self._resolver.texts(f"_smtp._tls.{domain}"))
        except ResolveTemporary as error:
            log.info("not known whether reports are wanted", domain=domain, reason=str(error))
            return False
        left = [uri for uri in uris if f"{domain} {uri}" not in done]
        if not left:
            return True
        report = build_report(
            domain,
            day,
            counts,
            submitter=self._hostname,
            contact=self._sender,
            organization=self._hostname,
            report_id=hashlib.sha256(f"{self._hostname} {domain} {day}".encode()).hexdigest()[:24],
        )
        is_whole = True
        for uri in left:
            problem = await self._send(report, uri)
            self._count(uri, "failed" if problem else "sent")
            if problem:
                log.warning("report not sent", domain=domain, to=uri, reason=problem)
                is_whole = False
                continue
            with record.open("a") as file:
                file.write(f"{domain} {uri}\n")
            log.info("report sent", domain=domain, to=uri, id=report.report_id)
        return is_whole

    def _count(self, uri: str, result: str) -> None:
        scheme = "https" if _is_https(uri) else "mailto"
        self._counters.counter("mailrail_tls_reports_total", scheme=scheme, result=result)[0] += 1

    async def _send(self, report: Report, uri: str) -> str:
        """Send a report to one URI; return what went wrong, "" for nothing."""
        if _is_https(uri):
            try:
                await self._poster.post(uri, report.document, MEDIA_TYPE)
            except FetchFailed as error:
                return str(error)
            return ""
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        recipient = mailbox_of(uri)
        self._accept(
            self._sender,
            [recipient],
            make_message(report, self._sender, recipient, self._unix()),
            False,
            FeedContext("report", "", self._customer),
            lambda reply, _ids: answered.set_result(reply),
        )
        reply = await answered
        return "" if reply.is_positive else str(reply)


def _is_https(uri: str) -> bool:
    return uri[:6].lower() == "https:"  # RFC 3986 section 3.1: schemes are case-insensitive
