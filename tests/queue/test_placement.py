"""Where new messages go: in proportion, and here while that keeps it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.queue.placement import SLACK, Placement, weigh_shards


def test_weights_are_summed_by_the_shard_that_owns():
    members = {"p": {"v1": 1.0, "v2": 2.0, "v3": 4.0, "v4": 8.0}, "q": {"v4": 1.0}}
    assert weigh_shards(members, {"v1": 0, "v2": 1, "v3": 1}) == {"p": {0: 1.0, 1: 6.0}, "q": {}}


def test_pool_of_one_shard_goes_there():
    placement = Placement({"p": {1: 5.0}}, local=0)
    assert [placement.place("p") for _ in range(10)] == [1] * 10


def test_pool_without_owner_stays_here():
    placement = Placement({"p": {}}, local=2)
    assert placement.place("p") == 2
    assert placement.place("unknown") == 2
    assert placement.owner("p") is None


@given(
    weights=st.dictionaries(st.integers(0, 4), st.floats(0.1, 10.0), min_size=2, max_size=5),
    local=st.integers(0, 4),
    messages=st.integers(1, 2_000),
    report_every=st.integers(1, 300),
)
def test_proportions_are_kept_within_the_slack(weights, local, messages, report_every):
    placement = Placement({"p": weights}, local)
    placed: Counter[int] = Counter()
    for i in range(messages):
        placed[placement.place("p")] += 1
        if i % report_every == 0:
            placement.take_report()
    total = sum(weights.values())
    for shard, weight in weights.items():
        assert abs(placed[shard] - messages * weight / total) <= SLACK + report_every + len(weights) + 1
    assert set(placed) <= set(weights)


def test_equal_intake_everywhere_forwards_nothing():
    shards = [Placement({"p": {0: 1.0, 1: 1.0, 2: 1.0}}, local) for local in range(3)]
    forwarded = 0
    for i in range(30_000):
        local = i % 3
        forwarded += shards[local].place("p") != local
        if i % 48 == 47:
            for sender in shards:
                report = sender.take_report()
                for receiver in shards:
                    if receiver is not sender:
                        receiver.merge(report)
    assert forwarded == 0


def test_intake_at_one_shard_forwards_only_what_others_must_carry():
    placement = Placement({"p": {0: 3.0, 1: 1.0}}, local=0)
    placed: Counter[int] = Counter()
    for i in range(10_000):
        placed[placement.place("p")] += 1
        if i % 100 == 0:
            placement.take_report()
    assert placed[1] == pytest.approx(2_500, abs=SLACK + 102)


def test_without_reports_the_slack_is_bounded():
    placement = Placement({"p": {0: 1.0, 1: 1.0}}, local=0)
    placed = Counter(placement.place("p") for _ in range(100_000))
    assert placed[1] > 45_000


def test_shard_that_is_down_gets_nothing_and_no_flood_later():
    placement = Placement({"p": {0: 1.0, 1: 1.0}}, local=0, slack=0)
    placement.set_down([1])
    assert {placement.place("p") for _ in range(1_000)} == {0}
    assert placement.owner("p") is None
    placement.set_down([])
    placement.take_report()
    placed = Counter(placement.place("p") for _ in range(1_000) if not placement.take_report() or True)
    assert placed[0] == pytest.approx(500, abs=2)


def test_all_that_could_carry_are_down():
    placement = Placement({"p": {1: 1.0}}, local=0)
    placement.set_down([1])
    assert placement.place("p") == 0


def test_hand_over_goes_to_another_shard_of_the_pool():
    placement = Placement({"p": {0: 1.0, 1: 1.0, 2: 8.0}}, local=0)
    placement.merge({"p": {1: 100}, "gone": {1: 5}})
    assert placement.owner("p") == 2
