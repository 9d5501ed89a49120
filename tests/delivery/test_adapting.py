"""adapting: from what peers say and do to the bounds of their paths."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.reply import Reply, make_reply
from engine.core.units import Rate
from engine.delivery.adapting import FIRST_CEILING, Adapting, is_lower, sign_of, worst_of
from engine.delivery.judging import Judge
from engine.delivery.paths import PathTable
from engine.policy.model import Destination
from engine.queue.adaptive import MIN_OUTCOMES, Adaptive
from engine.queue.ceilings import Ceiling
from engine.queue.path import Path, SiteDemand
from engine.telemetry.events import Event
from engine.telemetry.metrics import Counters
from tests.fakes.delivery_rig import UNIX_START, make_policies, make_vmta

OK = Reply(250, "2.0.0", "ok")
FAST = Reply(450, "4.7.1", "too many messages, slow down")
CROWDED = Reply(421, "4.7.0", "too many connections from your address")
BUSY = Reply(451, "4.3.0", "temporary system problem")
FULL = Reply(452, "4.2.2", "mailbox full")
SITE = Destination("mx", "site", "", "")
JUDGE = Judge(make_policies())


class Loop:
    """A clock that a test moves, and calls that it makes."""

    def __init__(self) -> None:
        self.now = 5000.0

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        call(*arguments)


class Desk:
    """Adapting over real paths; what is asked anew is noted."""

    def __init__(self, policy: str = "") -> None:
        self.loop: Any = Loop()
        self.kicked: list[Path] = []
        self.counters = Counters()
        self.paths = PathTable(make_policies(policy), (), self.loop.time)
        self.paths.first_ceiling = FIRST_CEILING
        self.paths.own([make_vmta("a", "192.0.2.1"), make_vmta("b", "192.0.2.1")], 0.0)
        self.adapting = Adapting(
            self.loop, JUDGE.category, self.kicked.append, self.counters, lambda destination: destination
        )
        self.path, self.twin = (self.paths.path(name, SITE, "") for name in "ab")

    @property
    def session(self) -> Any:
        return SimpleNamespace(path=self.path, now=self.loop.now)

    def open(self, count: int) -> None:
        demand = self.path.sites.setdefault("mx", SiteDemand("mx", lambda: 100))
        demand.sessions = count

    def take(self, count: int = 1) -> None:
        for _ in range(count):
            self.adapting.settled(self.session, OK, ())

    def refuse(self, reply: Reply, final: Reply | None = None) -> None:
        self.adapting.settled(self.session, final, [refusal(reply)])

    def refuse_fast(self) -> None:
        for _ in range(MIN_OUTCOMES):
            self.refuse(FAST)


def refusal(reply: Reply) -> Event:
    event = Event("deferred", UNIX_START, "1", "acme", "pool", "", UNIX_START, 1, 0, "u@x.example")
    event.reply = reply
    event.category = JUDGE.judge(reply, "", 1, is_permanent=reply.is_permanent).category
    return event


@pytest.mark.parametrize(
    ("reply", "sign"),
    [
        (FAST, "too fast"),
        (Reply(550, "5.7.1", "too many messages, slow down"), "too fast"),
        (Reply(421, "4.7.28", "Our system has detected an unusual rate of unsolicited mail"), "too fast"),
        (CROWDED, "connection"),
        (Reply(421, "4.7.0", "Too many concurrent SMTP sessions"), "connection"),
        (Reply(421, "4.3.2", "service not available, closing transmission channel"), "connection"),
        (make_reply(451, "4.4.1", "connection refused"), "connection"),
        (make_reply(451, "4.4.2", "connection lost"), "connection"),
        (make_reply(451, "4.7.5", "TLS is required: handshake failed"), "connection"),
        (make_reply(451, "4.4.3", "no name server answers"), ""),
        (BUSY, "unclear"),
        (Reply(451, "4.7.1", "greylisted, try again later"), ""),
        (FULL, ""),
        (Reply(450, "4.2.1", "The user you are trying to contact is receiving mail too quickly"), ""),
        (Reply(452, "4.5.3", "too many recipients"), ""),
        (Reply(550, "5.1.1", "no such user"), ""),
    ],
)
def test_sign_of_a_refusal(reply: Reply, sign: str) -> None:
    category = JUDGE.judge(reply, "", 1, is_permanent=reply.is_permanent).category
    assert sign_of(reply, category) == sign


def test_strongest_sign_of_a_transaction_counts() -> None:
    assert worst_of([refusal(FAST), refusal(FULL), refusal(BUSY)]) == "too fast"
    assert worst_of([refusal(FULL)]) == ""


def test_fresh_path_opens_slowly_and_is_asked_anew_when_it_may_have_more() -> None:
    desk = Desk()
    assert desk.path.max_connections == FIRST_CEILING.connections == 5
    desk.take(5)
    assert desk.path.max_connections == desk.twin.max_connections == 10
    assert desk.kicked == [desk.path, desk.twin]


def test_peer_that_is_too_fast_for_bounds_all_paths_that_share_the_address() -> None:
    desk = Desk()
    desk.refuse_fast()
    assert desk.path.max_message_rate == desk.twin.max_message_rate == Rate(1, 20.0)
    assert desk.path.rate_why == "adaptive limits"
    key = {"destination": "mx", "change": "lowered"}
    assert desk.counters.counter("mailrail_adaptive_changes_total", **key)[0] == 1


def test_path_made_later_is_bounded_too() -> None:
    desk = Desk()
    desk.refuse_fast()
    assert desk.paths.path("b", SITE, "vip").max_message_rate == Rate(1, 20.0)


def test_421_in_a_session_leaves_as_many_as_there_are_others() -> None:
    desk = Desk()
    desk.take(100)
    desk.open(4)
    desk.refuse(CROWDED)
    assert desk.path.max_connections == 3
    assert desk.path.connections_why == "adaptive limits"


def test_refused_connection_while_others_are_open_bounds_them() -> None:
    desk = Desk()
    desk.take(100)
    desk.open(3)
    desk.adapting.failed(desk.path, CROWDED, "")
    assert desk.path.max_connections == 3


def test_one_that_was_on_its_way_is_counted_when_it_opens() -> None:
    desk = Desk()
    desk.take(100)
    desk.open(2)
    desk.adapting.failed(desk.path, CROWDED, "")
    desk.open(3)
    desk.adapting.opened(desk.path)
    assert desk.path.max_connections == 3


def test_connection_that_fails_with_none_open_is_of_a_dead_site() -> None:
    desk = Desk()
    desk.adapting.failed(desk.path, make_reply(451, "4.4.1", "connection refused"), "")
    assert desk.path.limits.learned is None


def test_name_servers_that_do_not_answer_are_no_trouble_of_the_peer() -> None:
    desk = Desk()
    desk.take(100)
    desk.open(3)
    desk.adapting.failed(desk.path, make_reply(451, "4.4.3", "no name server answers"), "")
    assert desk.path.max_connections == 10


def test_greeting_that_says_too_fast_bounds_the_rate() -> None:
    desk = Desk()
    desk.take(MIN_OUTCOMES)
    desk.adapting.failed(desk.path, FAST, "")
    assert desk.path.max_message_rate == Rate(1, 20.0)


def test_refusals_of_single_messages_change_nothing() -> None:
    desk = Desk()
    desk.take(100)
    before = desk.path.limits.ceiling
    for _ in range(1000):
        desk.loop.now += 0.1
        desk.refuse(FULL, OK)
    assert desk.path.limits.ceiling is before is None


def test_policy_may_say_fixed_limits() -> None:
    desk = Desk("[default]\nadaptive = false\n")
    desk.refuse(FAST)
    desk.open(3)
    desk.adapting.failed(desk.path, CROWDED, "")
    assert desk.path.limits.learned is None
    assert desk.path.max_connections == 10
    assert desk.path.max_message_rate is None


def test_peer_without_trouble_costs_two_counts() -> None:
    desk = Desk()
    desk.take(100)
    learned = desk.path.limits.learned
    assert isinstance(learned, Adaptive)
    assert learned.pace is None
    assert learned.width is None


@pytest.mark.parametrize(
    ("now", "before", "lower"),
    [
        (None, Ceiling("a", "", 3), False),
        (Ceiling("a", "", 3), None, True),
        (Ceiling("a", "", 3), Ceiling("a", "", 4), True),
        (Ceiling("a", "", 4), Ceiling("a", "", 3), False),
        (Ceiling("a", "", 0, Rate(1, 2.0)), Ceiling("a", "", 0, Rate(1, 1.0)), True),
        (Ceiling("a", "", 0, Rate(1, 1.0)), Ceiling("a", "", 0, Rate(1, 2.0)), False),
        (Ceiling("a", "", 0, Rate(1, 1.0)), Ceiling("a", "", 3), True),
    ],
)
def test_which_bound_allows_less(now: Ceiling | None, before: Ceiling | None, lower: bool) -> None:
    assert is_lower(now, before) == lower
