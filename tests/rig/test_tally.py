from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.rig.tally import Tally, highest_in_window, summarize_latencies


def test_window_is_half_open() -> None:
    assert highest_in_window([0.0, 1.0, 2.0], 1.0) == 1
    assert highest_in_window([0.0, 0.999, 1.0], 1.0) == 2
    assert highest_in_window([], 1.0) == 0


@given(st.lists(st.integers(0, 200), max_size=40), st.integers(1, 50))
def test_highest_in_window_equals_counting_from_every_instant(ticks: list[int], window: int) -> None:
    instants = sorted(float(tick) for tick in ticks)
    naive = max((sum(start <= at < start + window for at in instants) for start in instants), default=0)
    assert highest_in_window(instants, float(window)) == naive


def test_second_copy_of_a_recipient_is_a_duplicate_and_another_recipient_is_not() -> None:
    tally = Tally()
    tally.take(b"m1", [b"a@x", b"b@x"], 0.0, 1.0)
    tally.take(b"m1", [b"c@y"], 0.0, 2.0)
    assert tally.duplicate_count == 0
    tally.take(b"m1", [b"b@x"], 0.0, 3.0)
    report = tally.report()
    assert (report["unique"], report["duplicates"], report["duplicate_examples"]) == (3, 1, ["m1 b@x"])


def test_peak_of_connections_stays_after_they_close() -> None:
    tally = Tally()
    links = [tally.open_link("127.0.0.2", "127.0.0.9") for _ in range(3)]
    for link in links:
        tally.close_link(link)
    tally.open_link("127.0.0.2", "127.0.0.9")
    row = tally.report()["links"][0]
    assert (row["peak_connections"], row["open"], row["connections"]) == (3, 1, 4)


def test_limits_are_judged_over_all_domains_of_a_listening_address() -> None:
    tally = Tally()
    for domain, at in (("a", 0.0), ("b", 0.5), ("a", 0.9)):
        tally.flow("127.0.0.2", "127.0.0.9", domain).instants.append(at)
    report = tally.report([1.0])
    assert report["limits"][0]["peaks"] == {"1": 3}
    assert {flow["domain"]: flow["peaks"]["1"] for flow in report["flows"]} == {"a": 2, "b": 1}


def test_latencies_are_summarized_in_milliseconds() -> None:
    summary = summarize_latencies([number / 1000 for number in range(1, 101)])
    assert summary == {"count": 100, "p50_ms": 50.0, "p99_ms": 99.0, "max_ms": 100.0}
