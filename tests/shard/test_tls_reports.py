"""TLS reports sent: once, to everybody who asks, by mail and https (RFC 8460)."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from engine.core.errors import ResolveTemporary
from engine.core.reply import make_reply
from engine.net.https import FetchFailed
from engine.security.tally import NO_POLICY, Tally
from engine.settings.parse import parse_settings
from engine.shard.tls_reports import FIRST_S, GIVE_UP_S, RETRY_S, SPREAD_S, TlsReports
from engine.telemetry.metrics import Counters

DAY, DAY_S = 20_000, 86400.0
SETTINGS = """\
[engine]
hostname = "mta.acme.example"
data_dir = "/a"
{more}
[[vmta]]
name = "v"
source = "192.0.2.1"
hostname = "v.acme.example"
[[pool]]
name = "p"
members = {{ v = 1 }}
[[customer]]
name = "acme"
pool = "p"
senders = ["*@acme.example"]
"""


class World:
    """DNS, the recipients' servers, our acceptance, the clock."""

    def __init__(self, data_dir):
        self.data_dir = data_dir
        self.now = (DAY + 1) * DAY_S + FIRST_S + SPREAD_S
        self.records = {}
        self.posted = []
        self.mailed = []
        self.refusal = None
        self.failure = None
        for shard in (0, 1):
            tally = Tally()
            tally.succeed("a.example", NO_POLICY)
            if shard:
                tally.succeed("b.example", NO_POLICY)
            (data_dir / f"shard-{shard}").mkdir()
            (data_dir / f"shard-{shard}" / f"tls-{DAY}.tally").write_bytes(tally.export())
        self.start()

    def start(self, more='tls_report_from = "tls@acme.example"'):
        self.counters = Counters()
        self.reports = TlsReports(
            self.data_dir, self, self, self.accept, lambda: self.now, counters=self.counters
        )
        self.reports.use(parse_settings("mailrail.toml", SETTINGS.format(more=more)))

    async def texts(self, name):
        found = self.records.get(name, [])
        if isinstance(found, Exception):
            raise found
        return found

    async def post(self, url, octets, media_type):
        if self.failure is not None:
            raise self.failure
        self.posted.append((url, octets, media_type))

    def accept(self, sender, recipients, message, is_8bit, context, done):
        if self.refusal is not None:
            done(self.refusal, [])
            return
        self.mailed.append((sender, recipients, message, context))
        done(make_reply(250, "2.0.0", "Ok"), ["id"])

    def run(self, after_s=0.0):
        self.now += after_s
        asyncio.run(self.reports.run())

    @property
    def counts(self):
        rows = self.counters.snapshot()["counters"]
        return {tuple(labels): value for name, labels, value in rows if name == "mailrail_tls_reports_total"}

    @property
    def is_over(self):
        return not list(self.data_dir.glob("**/tls-*"))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_report_goes_by_mail_and_https_with_what_all_shards_counted(world):
    """RFC 8460 sections 3 and 5."""
    world.records["_smtp._tls.a.example"] = ["v=TLSRPTv1; rua=mailto:tls@a.example,https://r.example/v1"]
    world.run()
    ((sender, recipients, message, context),) = world.mailed
    assert (sender, recipients) == ("tls@acme.example", ["tls@a.example"])
    assert (context.feed, context.customer) == ("report", "acme")
    assert b"\r\nTLS-Required: No\r\n" in message
    ((url, octets, media_type),) = world.posted
    assert (url, media_type) == ("https://r.example/v1", "application/tlsrpt+gzip")
    document = json.loads(gzip.decompress(octets))
    assert document["policies"][0]["summary"]["total-successful-session-count"] == 2
    assert document["contact-info"] == "tls@acme.example"
    assert world.is_over


def test_domain_that_asks_for_none_gets_none(world):
    world.run()
    assert (world.mailed, world.posted, world.is_over) == ([], [], True)


def test_day_is_reported_after_it_is_over_and_not_by_all_hosts_at_once(world):
    """RFC 8460 section 4.1: a random delay."""
    due_at = world.reports.due_at(DAY)
    assert (DAY + 1) * DAY_S + FIRST_S <= due_at <= (DAY + 1) * DAY_S + FIRST_S + SPREAD_S
    world.now = due_at - 1
    world.run()
    assert not world.is_over
    world.run(2)
    assert world.is_over


def test_what_failed_is_tried_again_and_what_was_sent_is_not(world):
    """RFC 8460 section 5.5."""
    world.records["_smtp._tls.a.example"] = ["v=TLSRPTv1; rua=mailto:tls@a.example,https://r.example/v1"]
    world.failure = FetchFailed("sts-policy-fetch-error", "HTTP status 503")
    world.run()
    assert (len(world.mailed), len(world.posted)) == (1, 0)
    world.failure = None
    world.start()  # another process
    world.run(RETRY_S)
    assert (len(world.mailed), len(world.posted)) == (1, 1)
    assert world.is_over


def test_retries_wait_and_end(world):
    world.records["_smtp._tls.a.example"] = ["v=TLSRPTv1; rua=mailto:tls@a.example"]
    world.refusal = make_reply(452, "4.3.1", "full")
    world.run()
    world.refusal = None
    world.run(60)
    assert world.mailed == []
    world.refusal = make_reply(452, "4.3.1", "full")
    world.run(GIVE_UP_S)
    assert world.is_over


def test_unknown_wishes_are_asked_for_again(world):
    world.records["_smtp._tls.a.example"] = ResolveTemporary("a.example", "SERVFAIL")
    world.run()
    assert not world.is_over
    world.records["_smtp._tls.a.example"] = ["v=TLSRPTv1; rua=mailto:tls@a.example"]
    world.run(RETRY_S)
    assert len(world.mailed) == 1


def test_nothing_is_sent_unless_configured(world):
    world.records["_smtp._tls.a.example"] = ["v=TLSRPTv1; rua=mailto:tls@a.example"]
    world.start(more="")
    world.run()
    assert world.mailed == []


def test_reports_are_counted_by_scheme_and_result(world):
    world.records["_smtp._tls.a.example"] = ["v=TLSRPTv1; rua=mailto:tls@a.example,HTTPS://r.example/v1"]
    world.failure = FetchFailed("sts-policy-fetch-error", "HTTP status 503")
    world.run()
    assert world.counts == {("mailto", "sent"): 1, ("https", "failed"): 1}
    world.failure = None
    world.run(3600.0)
    assert world.counts == {("mailto", "sent"): 1, ("https", "failed"): 1, ("https", "sent"): 1}
