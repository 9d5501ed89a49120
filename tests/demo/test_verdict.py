from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from engine.demo.account import Line
from engine.demo.verdict import Verdict, judge
from tests.demo.conftest import FAST, OTHER_SOURCE, PACE_S, SLOW, SOURCE, GoodRun

Spoil = Callable[..., None]


def verdict_of(run: GoodRun) -> Verdict:
    return judge(run.scenario, run.account(), run.handed_over, run.shards)


def only_finding(run: GoodRun) -> str:
    findings = verdict_of(run).findings
    assert len(findings) == 1, findings
    return findings[0]


def test_run_without_fault_is_good(run: GoodRun) -> None:
    verdict = verdict_of(run)
    assert verdict.findings == []
    assert verdict.is_good
    assert (verdict.handed_over, verdict.arrived, verdict.lost, verdict.duplicates) == (400, 400, 0, 0)
    assert [tuple(row) for row in verdict.sources] == [
        ("acme", SOURCE, "mail1.acme.example", 200),
        ("globex", OTHER_SOURCE, "mail1.globex.example", 200),
    ]


def test_one_lost_message_is_found(run: GoodRun) -> None:
    del run.lines[run.find(SOURCE, FAST, 50)]
    assert only_finding(run) == "1 lost: acme-fast.example-50 for u50@fast.example"


def test_one_duplicate_is_found(run: GoodRun) -> None:
    twin = run.lines[run.find(SOURCE, SLOW, 50)]
    run.lines.append(msgspec.structs.replace(twin, t=twin.t + 0.05))
    finding = only_finding(run)
    assert finding == "1 delivered more than once: acme-slow.example-50 for u50@slow.example"
    assert verdict_of(run).duplicates == 1


def test_message_that_nobody_handed_over_is_found(run: GoodRun) -> None:
    del run.handed_over["acme-slow.example-7", "u7@slow.example"]
    findings = verdict_of(run).findings
    assert any(
        finding.startswith("1 delivered, never handed over: acme-slow.example-7") for finding in findings
    )
    assert "399 of 400 messages were handed over" in findings


def test_feed_that_stopped_early_is_found(run: GoodRun) -> None:
    index = run.find(SOURCE, SLOW, 99)
    del run.handed_over[run.lines[index].id, run.lines[index].rcpt[0]]
    del run.lines[index]
    assert only_finding(run) == "399 of 400 messages were handed over"


def test_refused_message_is_found(run: GoodRun) -> None:
    run.lines.append(Line(9.0, "message", SLOW, SOURCE, "mail1.acme.example", ["u@slow.example"], "x", False))
    assert only_finding(run) == "1 messages refused by the sinks, which refuse nothing"


def test_source_of_another_customer_is_found(run: GoodRun) -> None:
    index = run.find(SOURCE, SLOW, 50)
    run.lines[index] = msgspec.structs.replace(
        run.lines[index], source=OTHER_SOURCE, ehlo="mail1.globex.example"
    )
    finding = only_finding(run)
    assert finding.startswith("1 from a source that is not its customer's: acme-slow.example-50 ")
    assert finding.endswith(" from 127.0.1.2")


def test_source_that_is_no_vmta_is_found(run: GoodRun) -> None:
    index = run.find(SOURCE, SLOW, 50)
    run.lines[index] = msgspec.structs.replace(run.lines[index], source="127.0.0.1")
    assert any(
        finding.startswith("1 from a source that is not its customer's")
        for finding in verdict_of(run).findings
    )


def test_wrong_ehlo_name_is_found(run: GoodRun, spoil: Spoil) -> None:
    spoil(50, ehlo="localhost")
    assert only_finding(run).startswith("1 under a wrong EHLO name: acme-fast.example-50")


def test_wrong_sink_is_found(run: GoodRun, spoil: Spoil) -> None:
    spoil(50, rcpt=["u50@slow.example"])
    assert any(finding.startswith("1 delivered at a wrong sink") for finding in verdict_of(run).findings)


def test_one_message_over_the_rate_is_found(run: GoodRun) -> None:
    before = run.lines[run.find(SOURCE, FAST, 50)].t
    run.add("acme", SOURCE, FAST, "fast.example", before + 0.01, 1000)
    run.scenario.messages += 1
    assert only_finding(run) == "1 paths over 10/s of fast.example: 127.0.1.1 sent 11"


def test_window_is_half_open(run: GoodRun, spoil: Spoil) -> None:
    """Ten messages, and an eleventh just one window after the first, are allowed."""
    first = run.find(SOURCE, FAST, 0)
    start = run.lines[first].t
    for position in range(11):
        spoil(position, t=start + position / 10)
    for position in range(11, 100):
        spoil(position, t=start + 1.0 + (position - 10) * PACE_S)
    assert verdict_of(run).is_good
    spoil(10, t=start + 0.999)
    assert only_finding(run) == "1 paths over 10/s of fast.example: 127.0.1.1 sent 11"


def test_refused_message_counts_for_the_rate(run: GoodRun) -> None:
    before = run.lines[run.find(SOURCE, FAST, 50)].t
    line = Line(before + 0.01, "message", FAST, SOURCE, "mail1.acme.example", ["u@fast.example"], "x", False)
    run.lines.append(line)
    assert "1 paths over 10/s of fast.example: 127.0.1.1 sent 11" in verdict_of(run).findings


@pytest.mark.parametrize(("listen", "name"), [(FAST, "fast.example"), (SLOW, "slow.example")])
def test_one_connection_too_many_is_found(run: GoodRun, listen: str, name: str) -> None:
    run.lines += [Line(5.0, "open", listen, SOURCE), Line(5.001, "close", listen, SOURCE)]
    assert only_finding(run) == f"1 paths over max_connections = 2 of {name}: 127.0.1.1 had 3"


def test_connection_that_follows_one_that_closed_is_allowed(run: GoodRun) -> None:
    run.lines += [Line(5.0, "close", SLOW, SOURCE), Line(5.01, "open", SLOW, SOURCE)]
    assert verdict_of(run).is_good


def test_connections_that_are_used_too_little_are_found(run: GoodRun) -> None:
    run.lines += [Line(5.0, "close", SLOW, SOURCE), Line(6.5, "open", SLOW, SOURCE)]
    assert only_finding(run).startswith("1 paths used less than 95% of slow.example: 127.0.1.1 used 9")


def test_connections_that_never_reach_their_limit_are_found(run: GoodRun) -> None:
    lines = [line for line in run.lines if (line.listen, line.source) == (SLOW, SOURCE)]
    run.lines.remove(next(line for line in lines if line.kind == "open"))
    run.lines.remove(next(line for line in lines if line.kind == "close"))
    findings = verdict_of(run).findings
    assert findings[0] == "1 paths that never had the 2 connections of slow.example: 127.0.1.1 had 1"
    assert findings[1].startswith("1 paths used less than 95% of slow.example: 127.0.1.1 used 50.0%")


def test_rate_that_is_used_too_little_is_found(run: GoodRun, spoil: Spoil) -> None:
    for position in range(50, 100):
        spoil(position, t=run.lines[run.find(SOURCE, FAST, position)].t + 1.0)
    assert only_finding(run).startswith("1 paths used less than 95% of fast.example: 127.0.1.1 used ")


def test_path_without_backlog_is_found(run: GoodRun) -> None:
    for line in run.lines:
        if line.kind == "message" and line.listen == FAST and line.source == SOURCE:
            run.handed_over[line.id, line.rcpt[0]] = line.t - 0.01
    assert only_finding(run) == (
        "1 paths used less than 95% of fast.example: 127.0.1.1 used 0.0% in 0.0 s of backlog"
    )


def test_examples_of_a_finding_are_few_and_the_count_is_whole(run: GoodRun) -> None:
    run.lines = [line for line in run.lines if not (line.kind == "message" and line.listen == SLOW)]
    lost = next(finding for finding in verdict_of(run).findings if "lost" in finding)
    assert lost.startswith("200 lost: ")
    assert lost.endswith(" and 197 more")
