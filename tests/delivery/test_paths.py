"""paths: paths by vmta and destination, limits by source address, holds of whole vmtas."""

from __future__ import annotations

import math

from engine.core.units import Rate
from engine.delivery.paths import PathTable
from engine.policy.model import Destination
from engine.queue.adaptive import Adaptive
from engine.queue.path import Cap, Path
from tests.fakes.delivery_rig import UNIX_START, make_policies, make_vmta

ONE = Destination("one", "site", "", "")
TWO = Destination("two", "site", "", "")
NOW = 5000.0
SLOW = '[default]\nmax_message_rate = "1/10m"'


def make_table(
    *vmtas: tuple[str, str], policy: str = "", quiet_until: float = 0.0, now: float = 0.0
) -> PathTable:
    table = PathTable(make_policies(policy), (Cap("max_connections_per_shard", 0),), lambda: now)
    table.own([make_vmta(*vmta) for vmta in vmtas], quiet_until)
    return table


def spend(path: Path, now: float) -> None:
    path.redeem_message(now, path.reserve_message(now))


def test_a_path_is_made_once() -> None:
    table = make_table(("a", ""))
    assert table.path("a", ONE, "") is table.path("a", ONE, "")
    assert table.path("a", ONE, "") is not table.path("a", ONE, "vip")
    assert table.policy_of(table.path("a", ONE, "")).port == 25


def test_vmtas_of_one_address_share_limits_and_others_do_not() -> None:
    table = make_table(("a", "192.0.2.1"), ("b", "192.0.2.1"), ("c", "192.0.2.3"))
    assert table.limits("a", "gmail") is table.limits("b", "gmail")
    assert table.limits("a", "gmail") is not table.limits("a", "yahoo")
    assert table.limits("a", "gmail") is not table.limits("c", "gmail")


def test_a_newcomer_on_a_known_address_finds_what_was_spent_there() -> None:
    table = make_table(("b", "192.0.2.1"), policy=SLOW)
    spend(table.path("b", ONE, ""), NOW)
    table.own([make_vmta("a", "192.0.2.1")], 0.0)
    assert table.path("a", ONE, "").message_ready_at(NOW) > NOW + 590.0


def test_who_stays_keeps_what_was_spent_by_who_left() -> None:
    table = make_table(("a", "192.0.2.1"), ("b", "192.0.2.1"), policy=SLOW)
    spend(table.path("a", ONE, ""), NOW)
    table.disown(["a"])
    table.own([], 0.0)
    assert table.path("b", ONE, "").message_ready_at(NOW) > NOW + 590.0


def test_a_vmta_that_comes_back_brings_what_was_spent_elsewhere() -> None:
    """Not what it had spent when it left: that stood in the way once."""
    here, there = make_table(("a", "192.0.2.1"), policy=SLOW), make_table(("a", "192.0.2.1"), policy=SLOW)
    spend(here.path("a", ONE, ""), NOW)
    spend(there.path("a", ONE, ""), NOW + 1000.0)
    here.disown(["a"])
    here.drop_limits(["a"])
    here.own([], 0.0)
    here.own([make_vmta("a", "192.0.2.1")], 0.0)
    now = NOW + 1001.0
    here.restore_limits(there.export_limits(["a"], now, UNIX_START), now, UNIX_START)
    assert here.path("a", ONE, "").message_ready_at(now) > now + 590.0


def test_limits_of_vmtas_that_are_not_here_are_not_taken_over() -> None:
    there, here = make_table(("a", "192.0.2.1"), policy=SLOW), make_table(("b", "192.0.2.2"), policy=SLOW)
    spend(there.path("a", ONE, ""), NOW)
    here.restore_limits(there.export_limits(["a"], NOW, UNIX_START), NOW, UNIX_START)
    assert here.path("b", ONE, "").message_ready_at(NOW) <= NOW


def test_a_vmta_that_is_renamed_finds_what_was_spent_and_is_still_open() -> None:
    table = make_table(("a", "192.0.2.1"), policy=SLOW)
    path = table.path("a", ONE, "")
    spend(path, NOW)
    assert path.try_connect(NOW)
    table.disown(["a"])
    table.own([], 0.0)  # two reloads: the address is nobody's in between
    table.own([make_vmta("new", "192.0.2.1")], 0.0)
    renamed = table.path("new", ONE, "")
    assert renamed.limits.slots.in_use(NOW) == 1
    assert renamed.message_ready_at(NOW) > NOW + 590.0
    assert table.limits_of(["new"]) == {path.limits}


def test_an_address_that_changes_hands_keeps_what_was_spent_there() -> None:
    table = make_table(("a", "192.0.2.1"), ("b", "192.0.2.2"), policy=SLOW)
    spend(table.path("a", ONE, ""), NOW)
    table.disown(["a", "b"])
    table.own([make_vmta("a", "192.0.2.2"), make_vmta("b", "192.0.2.1")], 0.0)
    assert table.path("a", ONE, "").message_ready_at(NOW) <= NOW
    assert table.path("b", ONE, "").message_ready_at(NOW) > NOW + 590.0


def test_addresses_that_count_together_from_now_on_take_over_what_each_has_spent() -> None:
    fast = '[default]\nmax_message_rate = "2/10m"\nburst = 2'
    first, second = make_table(("a", "192.0.2.1"), policy=fast), make_table(("b", "192.0.2.2"), policy=fast)
    spend(first.path("a", ONE, ""), NOW)
    spend(second.path("b", ONE, ""), NOW + 1.0)
    here = make_table(("a", "192.0.2.1"), ("b", "192.0.2.2"), policy=fast)
    here.own([*here.vmtas.values(), make_vmta("c", "192.0.2.1", v6="192.0.2.2")], 0.0)
    now = NOW + 2.0
    rows = [*first.export_limits(["a"], now, UNIX_START), *second.export_limits(["b"], now, UNIX_START)]
    here.restore_limits(rows, now, UNIX_START)
    assert here.path("b", ONE, "").message_ready_at(now) > now + 590.0


def test_of_two_that_tell_of_an_address_the_later_is_believed() -> None:
    old, new = make_table(("a", "192.0.2.1"), policy=SLOW), make_table(("a", "192.0.2.1"), policy=SLOW)
    spend(old.path("a", ONE, ""), NOW)
    spend(new.path("a", ONE, ""), NOW + 300.0)
    rows = [
        *new.export_limits(["a"], NOW + 300.0, UNIX_START + 300.0),
        *old.export_limits(["a"], NOW, UNIX_START),
    ]
    here = make_table(("a", "192.0.2.1"), policy=SLOW)
    here.restore_limits(rows, NOW + 301.0, UNIX_START + 301.0)
    ready_at = here.path("a", ONE, "").message_ready_at(NOW + 301.0)
    assert NOW + 900.0 < ready_at < NOW + 920.0


def test_the_cap_of_a_vmta_that_comes_back_counts_what_is_still_open() -> None:
    table = make_table(("a", "192.0.2.1"))
    table.vmta_cap("a").in_use = 1
    table.disown(["a"])
    table.own([make_vmta("a", "192.0.2.1")], 0.0)
    assert table.vmta_cap("a").in_use == 1


def test_disowned_paths_are_given_back_and_forgotten() -> None:
    table = make_table(("a", ""), ("b", ""))
    gone, kept = table.path("a", ONE, ""), table.path("b", ONE, "")
    assert table.disown(["a"]) == [gone]
    assert list(table.paths.values()) == [kept]
    assert list(table.vmtas) == ["b"]


def test_connections_wait_after_a_start() -> None:
    table = make_table(("a", ""), quiet_until=NOW + 2.0)
    path = table.path("a", ONE, "")
    assert not path.try_connect(NOW)
    assert path.try_connect(NOW + 2.1)


def test_every_path_of_a_vmta_counts_in_its_cap() -> None:
    table = make_table(("a", ""))
    table.vmta_cap("a").limit = 5
    first, second = table.path("a", ONE, ""), table.path("a", TWO, "")
    assert first.caps[0] is second.caps[0] is table.vmta_cap("a")
    assert [cap.name for cap in first.caps] == ["max_connections of the vmta", "max_connections_per_shard"]


def test_a_reload_changes_the_cap_of_a_vmta_in_place() -> None:
    table = make_table(("a", ""))
    cap = table.vmta_cap("a")
    changed = make_vmta("a")
    table.own([type(changed)(name="a", v4="", v6="", hostname="a.example", max_connections=7)], 0.0)
    assert table.vmta_cap("a") is cap
    assert cap.limit == 7


def test_new_policies_reach_paths_that_exist() -> None:
    table = make_table(("a", ""))
    path = table.path("a", ONE, "")
    table.replace_policies(make_policies('[default]\nmax_connections = 3\nmax_message_rate = "1/h"'))
    assert path.policy.max_connections == 3
    assert path.policy.max_message_rate == Rate(1, 3600.0)


def test_a_held_vmta_holds_paths_that_are_made_later_too() -> None:
    table = make_table(("a", ""), ("b", ""))
    before, other = table.path("a", ONE, ""), table.path("b", ONE, "")
    table.hold_vmta("a", "op", "paused", math.inf)
    after = table.path("a", TWO, "")
    assert before.hold_in_force(NOW) == after.hold_in_force(NOW) == ("paused", math.inf)
    assert other.hold_in_force(NOW) is None
    assert list(table.held_vmtas()) == ["a"]
    assert table.release_vmta("a", "op") == [before, after]
    assert before.hold_in_force(NOW) is None
    assert not table.held_vmtas()


def test_a_hold_leaves_with_its_vmta() -> None:
    table = make_table(("a", ""))
    table.hold_vmta("a", "op", "paused", math.inf)
    table.disown(["a"])
    table.own([make_vmta("a")], 0.0)
    assert table.path("a", ONE, "").hold_in_force(NOW) is None


def test_idle_paths_are_forgotten_with_limits_that_hold_nobody_back() -> None:
    table = make_table(("a", ""), policy=SLOW)
    idle, busy = table.path("a", ONE, ""), table.path("a", TWO, "")
    busy.hold("op", "paused", math.inf)
    spend(idle, NOW)
    gone: list[Path] = []
    table.forget_idle(NOW + 1.0, gone.append)
    assert gone == [idle]
    assert list(table.paths.values()) == [busy]
    assert table.path("a", ONE, "").message_ready_at(NOW + 1.0) > NOW + 500.0
    table.forget_idle(NOW + 2000.0, gone.append)
    assert table.path("a", ONE, "").message_ready_at(NOW + 2000.0) <= NOW + 2000.0


def test_what_was_learned_of_a_peer_moves_with_the_vmta() -> None:
    there, here = make_table(("a", "192.0.2.1")), make_table(("a", "192.0.2.1"))
    limits = there.path("a", ONE, "").limits
    limits.learned = Adaptive(NOW)
    limits.learned.troubled(NOW, 3)
    here.restore_limits(there.export_limits(["a"], NOW, UNIX_START), NOW, UNIX_START)
    assert here.path("a", ONE, "").max_connections == 3
    late = make_table(("a", "192.0.2.1"))
    late.restore_limits(there.export_limits(["a"], NOW, UNIX_START), NOW, UNIX_START + 90_000.0)
    assert late.path("a", ONE, "").max_connections == 10


def test_what_was_learned_is_exported_among_long_windows_and_what_was_not_is_left_out() -> None:
    table = make_table(("a", "192.0.2.1"), policy='[default]\nmax_message_rate = "10/s"')
    for destination in (ONE, TWO):
        table.path("a", destination, "").limits.learned = Adaptive(NOW)
    learned = table.limits("a", "one").learned
    assert learned is not None
    for _ in range(5):
        learned.too_fast(NOW)
    (row,) = table.export_limits(["a"], NOW, UNIX_START, over_s=60.0)
    assert row.destination == "one"
    assert row.learned is not None


def test_paths_that_are_forgotten_no_longer_share_limits() -> None:
    table = make_table(("a", "192.0.2.1"), ("b", "192.0.2.1"))
    limits = table.path("a", ONE, "").limits
    b = table.path("b", ONE, "")
    table.disown(["a"])
    assert limits.paths == [b]
    table.forget_idle(NOW, lambda path: None)
    assert limits.paths == []
