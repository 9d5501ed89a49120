"""site_queue: which path comes next, how much falls to each, how much a customer may have ready."""

from __future__ import annotations

import pytest

from engine.delivery.site_queue import KEEP_WHEN_STOPPED, MAX_DEBT, PASS_SLACK, SPARE_SLACK, SiteQueue
from engine.net.site import Host, make_site
from engine.policy.model import Destination
from engine.queue.path import Path, PathLimits
from tests.fakes.delivery_rig import UNIX_START, make_delivery, make_policies

SITE = Destination("mx.example", "site", "", "")


def make_queue(policy: str = "") -> SiteQueue:
    policies = make_policies(policy)
    return SiteQueue(
        "pool",
        SITE,
        make_site([Host("mx.example")]),
        "",
        lambda customer: policies.effective(SITE, customer),
        lambda customer: 1,
    )


def make_path(vmta: str) -> Path:
    return Path(vmta, "gmail", "", make_policies().effective(SITE), PathLimits(0.0), ())


def take(queue: SiteQueue, count: int) -> dict[str, int]:
    """Let the path that is furthest behind take, `count` times."""
    taken: dict[str, int] = {}
    for _ in range(count):
        path = queue.in_order()[0]
        queue.count_taken(path)
        taken[path.vmta] = taken.get(path.vmta, 0) + 1
    return taken


def test_weights_hold_in_the_long_run() -> None:
    queue = make_queue()
    queue.add_path(make_path("a"), 3)
    queue.add_path(make_path("b"), 1)
    assert take(queue, 4000) == {"a": 3000, "b": 1000}


def test_a_new_path_makes_up_for_a_bounded_part_of_what_it_missed() -> None:
    queue = make_queue()
    queue.add_path(make_path("a"), 1)
    take(queue, 500)
    queue.add_path(make_path("b"), 1)
    assert take(queue, int(MAX_DEBT)) == {"b": MAX_DEBT}
    assert take(queue, 10) == {"a": 5, "b": 5}


def test_a_spare_vmta_is_due_once_all_paths_have_carried_its_share() -> None:
    queue = make_queue()
    queue.add_path(make_path("a"), 1)
    queue.spare.append(("b", 1))
    take(queue, int(SPARE_SLACK) - 1)
    assert not queue.is_spare_due()
    take(queue, 1)
    assert queue.is_spare_due()


def test_a_spare_vmta_of_small_weight_waits_for_longer() -> None:
    queue = make_queue()
    queue.add_path(make_path("a"), 4)
    queue.spare.append(("b", 1))
    take(queue, 4 * int(SPARE_SLACK) - 1)
    assert not queue.is_spare_due()
    take(queue, 1)
    assert queue.is_spare_due()


def test_a_path_is_level_until_it_leads_by_the_slack() -> None:
    queue = make_queue()
    first, second = make_path("a"), make_path("b")
    queue.add_path(first, 1)
    queue.add_path(second, 1)
    for _ in range(int(PASS_SLACK)):
        queue.count_taken(first)
    assert queue.is_level(first)
    queue.count_taken(first)
    assert not queue.is_level(first)
    queue.count_taken(second)
    assert queue.is_level(first)


def test_adding_a_path_again_changes_its_weight_only() -> None:
    queue = make_queue()
    path = make_path("a")
    queue.add_path(path, 1)
    queue.add_path(path, 5)
    assert queue.paths == [path]
    assert queue.weights[path] == 5


def test_a_path_that_could_not_go_for_long_makes_up_for_a_bounded_number() -> None:
    queue = make_queue()
    first, second = make_path("a"), make_path("b")
    queue.add_path(first, 1)
    queue.add_path(second, 1)
    for _ in range(10_000):
        queue.count_taken(first)
    assert take(queue, 200)["b"] == pytest.approx(100 + MAX_DEBT / 2, abs=2)


def test_a_path_is_ahead_once_it_has_carried_more_than_the_slack() -> None:
    queue = make_queue()
    first, second = make_path("a"), make_path("b")
    queue.add_path(first, 1)
    queue.add_path(second, 1)
    for _ in range(int(PASS_SLACK)):
        queue.count_taken(first)
    assert not queue.is_ahead(first, second)
    queue.count_taken(first)
    assert queue.is_ahead(first, second)


def test_a_dropped_path_gets_no_share() -> None:
    queue = make_queue()
    path = make_path("a")
    queue.add_path(path, 1)
    queue.push(make_delivery())
    assert queue.share(path) == 1
    queue.drop_path(path)
    queue.drop_path(path)
    assert queue.share(path) == 0


def test_shares_follow_the_weights_and_leave_out_what_an_opening_session_will_take() -> None:
    queue = make_queue()
    first, second = make_path("a"), make_path("b")
    queue.add_path(first, 3)
    queue.add_path(second, 1)
    for _ in range(9):
        queue.push(make_delivery())
    queue.opening = 1
    assert (queue.share(first), queue.share(second)) == (6, 2)


def test_whatever_waits_is_at_least_one_for_every_path() -> None:
    queue = make_queue()
    first, second = make_path("a"), make_path("b")
    queue.add_path(first, 100)
    queue.add_path(second, 1)
    queue.push(make_delivery())
    assert queue.share(second) == 1


def test_push_gives_the_time_of_expiry_by_policy() -> None:
    queue = make_queue('[default]\nexpire_after = "1h"')
    delivery = make_delivery()
    queue.push(delivery)
    assert delivery.expires_at == UNIX_START + 3600


def test_ready_limit_is_for_each_customer() -> None:
    queue = make_queue("[default]\nready_limit = 2\n[customer.vip.default]\nready_limit = 3")
    assert [queue.push(make_delivery()) for _ in range(3)] == [True, True, False]
    assert [queue.push(make_delivery(customer="vip")) for _ in range(4)] == [True, True, True, False]
    assert queue.room("acme") <= 0
    assert queue.room("other") == 2


def test_a_customer_is_low_at_half_of_its_limit() -> None:
    queue = make_queue("[default]\nready_limit = 4")
    for _ in range(3):
        queue.push(make_delivery())
    assert not queue.is_low("acme")
    queue.queue.pop()
    assert queue.is_low("acme")


def test_where_no_session_opens_one_delivery_is_kept_to_try_with() -> None:
    queue = make_queue()
    queue.is_stopped = True
    assert [queue.push(make_delivery()) for _ in range(3)].count(True) == KEEP_WHEN_STOPPED
    assert queue.room("acme") <= 0


def test_only_the_first_stored_queue_of_a_customer_asks_for_a_read() -> None:
    queue = make_queue()
    assert queue.wait_behind("acme", b"acme\0x.example\0")
    assert not queue.wait_behind("acme", b"acme\0y.example\0")
    assert queue.wait_behind("other", b"other\0x.example\0")


def test_rewind_touches_only_queues_that_wait() -> None:
    queue = make_queue()
    queue.rewind("acme", b"acme\0x.example\0")
    assert not queue.behind
    queue.wait_behind("acme", b"acme\0x.example\0")
    queue.behind["acme"][b"acme\0x.example\0"] = b"somewhere"
    queue.rewind("acme", b"acme\0x.example\0")
    assert queue.behind == {"acme": {b"acme\0x.example\0": b""}}
