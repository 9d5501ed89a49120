"""Vmtas dealt to shards: even in each pool, and stable."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.queue.assignment import assign, group_by_source

VMTAS = [f"v{i:02}" for i in range(30)]

pools_of = st.dictionaries(st.sampled_from("pqr"), st.sets(st.sampled_from(VMTAS), min_size=1), min_size=1)
shard_counts = st.integers(1, 5)
vmta_sets = st.sets(st.sampled_from(VMTAS))
addresses = st.dictionaries(
    st.sampled_from(VMTAS), st.lists(st.integers(0, 40).map(str), min_size=1, max_size=2), min_size=1
)


def single(*vmtas: str) -> list[tuple[str, ...]]:
    return [(vmta,) for vmta in vmtas]


def test_vmtas_that_share_an_address_are_one_group_also_by_way_of_others():
    sources = {"d": ["9"], "a": ["1", "2"], "b": ["2", "3"], "c": ["3"], "e": ["4"], "f": ["9", "4"]}
    assert group_by_source(sources) == [("a", "b", "c"), ("d", "e", "f")]


@given(addresses)
def test_groups_share_no_address(sources):
    groups = group_by_source(sources)
    assert sorted(vmta for group in groups for vmta in group) == sorted(sources)
    used = [{address for vmta in group for address in sources[vmta]} for group in groups]
    assert sum(map(len, used)) == len(set().union(*used))


def test_pool_is_dealt_evenly():
    owner = assign(single(*VMTAS), {"p": VMTAS}, 4, {})
    assert sorted(Counter(owner.values()).values()) == [7, 7, 8, 8]


def test_each_of_two_pools_is_dealt_evenly():
    pools = {"p": VMTAS[:10], "q": VMTAS[10:]}
    owner = assign(single(*VMTAS), pools, 2, {})
    for vmtas in pools.values():
        counts = Counter(owner[vmta] for vmta in vmtas)
        assert abs(counts[0] - counts[1]) <= 1


@given(sources=addresses, pools=pools_of, shards=st.integers(1, 5))
def test_group_has_one_owner_that_exists(sources, pools, shards):
    groups = group_by_source(sources)
    owner = assign(groups, pools, shards, {})
    assert set(owner) == set(sources)
    assert all(0 <= shard < shards for shard in owner.values())
    assert all(len({owner[vmta] for vmta in group}) == 1 for group in groups)


@given(
    before=st.sets(st.sampled_from(VMTAS)),
    added=st.sets(st.sampled_from(VMTAS)),
    pools=pools_of,
    shards=st.integers(1, 5),
)
def test_adding_moves_no_other(before, added, pools, shards):
    old = assign(single(*sorted(before)), pools, shards, {})
    new = assign(single(*sorted(before | added)), pools, shards, old, shards)
    assert {vmta: new[vmta] for vmta in before} == old


@given(vmtas=vmta_sets, pools=pools_of, shards=st.integers(2, 5))
def test_shard_that_is_gone_gives_up_only_its_own(vmtas, pools, shards):
    groups = single(*sorted(vmtas))
    old = assign(groups, pools, shards, {})
    new = assign(groups, pools, shards - 1, old, shards)
    assert all(new[vmta] == shard for vmta, shard in old.items() if shard < shards - 1)
    assert all(shard < shards - 1 for shard in new.values())


def test_new_shard_takes_over_its_part_and_no_more():
    groups = single(*VMTAS[:12])
    pools = {"p": VMTAS[:12]}
    old = assign(groups, pools, 2, {})
    new = assign(groups, pools, 3, old, 2)
    assert sorted(Counter(new.values()).values()) == [4, 4, 4]
    moved = {vmta for vmta in new if new[vmta] != old[vmta]}
    assert {new[vmta] for vmta in moved} == {2}
    assert len(moved) == 4


@given(vmtas=vmta_sets, pools=pools_of, shards=st.integers(1, 4), more=st.integers(1, 3))
def test_moves_go_only_to_new_shards(vmtas, pools, shards, more):
    groups = single(*sorted(vmtas))
    old = assign(groups, pools, shards, {})
    new = assign(groups, pools, shards + more, old, shards)
    assert all(new[vmta] == old[vmta] or new[vmta] >= shards for vmta in old)


def test_group_stays_where_most_of_it_was():
    assert assign([("a", "b", "c")], {}, 3, {"a": 0, "b": 2, "c": 2}) == {"a": 2, "b": 2, "c": 2}


def test_same_input_gives_the_same_deal():
    pools = {"p": set(VMTAS[:20]), "q": set(VMTAS[10:])}
    assert assign(single(*VMTAS), pools, 3, {}) == assign(single(*VMTAS), pools, 3, {})
