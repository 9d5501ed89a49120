"""reacting: what each action does, once a peer has said what a rule waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine.core.reply import Reply, make_reply
from engine.delivery.hearing import Whence
from engine.net.site import Host, make_site
from engine.policy.model import Destination
from tests.fakes.delivery_rig import REFUSED, make_delivery
from tests.fakes.rules_rig import RulesRig, rule
from tests.fakes.virtual_loop import run_virtually
from tests.fakes.wire import ScriptedPeer

TOO_MUCH = "421 4.3.0 not now"
LATER = "450 4.3.0 not now"
RETRY = '[default]\nretry = ["1m"]\nmax_connections = 1\n'
TWO = {"v1": 1, "v2": 1}


def hold(**keys: Any) -> str:
    return rule(name="stop", code=421, do="hold", **{"for": "10m"}, **keys)


def scene(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        run_virtually(test())  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


# -- hold ---------------------------------------------------------------------------------------------


@scene
async def test_hold_stops_the_path_for_its_time_and_lets_it_go_then() -> None:
    rig = RulesRig(RETRY + hold())
    rig.script(MAIL=[TOO_MUCH])
    rig.accept(*[make_delivery() for _ in range(20)])
    await rig.run(598.0)
    assert rig.keys == ["stop@v1/mx.x.example"]
    assert (rig.count("delivered"), rig.wrote()) == (0, 1)
    await rig.run(60.0)
    assert (rig.count("delivered"), rig.keys) == (20, [])


@scene
async def test_hold_is_no_attempt_and_does_not_lengthen_back_off() -> None:
    rig = RulesRig(RETRY + hold())
    rig.script(MAIL=[TOO_MUCH])
    rig.accept(*[make_delivery() for _ in range(20)])
    await rig.run(900.0)
    assert rig.count("deferred") == 1  # the one that was answered
    assert sorted(event.attempt for event in rig.told("delivered")) == [1] * 19 + [2]


@scene
async def test_held_mail_expires_all_the_same() -> None:
    rig = RulesRig(RETRY + 'expire_after = "5m"\n' + hold())
    rig.script(MAIL=TOO_MUCH)
    rig.accept(*[make_delivery() for _ in range(3)])
    await rig.run(620.0)
    assert (rig.count("expired"), rig.count("delivered"), rig.wrote()) == (3, 0, 1)


@scene
async def test_what_else_the_path_has_to_say_waits_for_the_end_of_the_hold() -> None:
    """After the reply was read no session of the path writes anything."""
    rig = RulesRig('[default]\nmax_connections = 5\nretry = ["1m"]\n' + hold())
    log: list[str] = []
    heard = rig.reacting.heard

    def note(reply: Reply, whence: Whence) -> Any:
        log.append("heard")
        return heard(reply, whence)

    rig.reacting.heard = note  # type: ignore[method-assign]

    class Noting(ScriptedPeer):
        def write(self, data: Any) -> None:
            log.append(bytes(data).split(b"\r\n", 1)[0].decode())
            super().write(data)

    ends = iter([None] * 7 + [TOO_MUCH] + [None] * 1000)
    rig.answer = lambda path, site: Noting(lambda line: next(ends) if line == "." else None, latency_s=0.05)
    rig.accept(*[make_delivery() for _ in range(60)])
    await rig.run(30.0)
    assert log.count("heard") == 1
    assert log.index("heard") > 10
    assert [line for line in log[log.index("heard") + 1 :] if line != "QUIT"] == []
    in_flight = 60 - rig.count("delivered") - rig.count("deferred")
    assert in_flight == sum(map(len, [site.queue for site in rig.sites]))
    await rig.run(700.0)
    assert rig.count("delivered") == 60


@scene
async def test_a_refused_recipient_holds_before_the_content_and_the_others_are_put_back() -> None:
    rig = RulesRig(RETRY + rule(name="stop", code=450, do="hold", **{"for": "10m"}))
    rig.script(RCPT=[LATER])
    rig.accept(make_delivery(recipients=3))
    await rig.run(60.0)
    ((_, _, peer),) = rig.peers
    assert not peer.messages
    (deferred,) = rig.told("deferred")
    assert (deferred.recipient, deferred.reply_rule) == ("u0@x.example", "stop")
    await rig.run(700.0)
    assert {event.recipient: event.attempt for event in rig.told("delivered")} == {
        "u0@x.example": 2,
        "u1@x.example": 1,
        "u2@x.example": 1,
    }


@scene
async def test_another_vmta_of_the_pool_carries_on_meanwhile() -> None:
    rig = RulesRig(RETRY + hold(), vmtas=TWO)
    rig.script(MAIL=[TOO_MUCH])
    rig.accept(*[make_delivery() for _ in range(20)])
    await rig.run(100.0)
    assert rig.count("delivered") == 20
    assert {event.vmta for event in rig.told("delivered")} == {"v2"}


@scene
async def test_scope_vmta_holds_all_its_paths_those_made_later_too() -> None:
    rig = RulesRig(RETRY + hold(scope="vmta"))
    rig.script(MAIL=[TOO_MUCH])
    rig.accept(make_delivery("x.example"))
    await rig.run(5.0)
    rig.accept(make_delivery("y.example"))
    await rig.run(100.0)
    assert (rig.keys, rig.count("delivered")) == (["stop@v1"], 0)
    assert rig.paths.held_vmtas().keys() == {"v1"}
    await rig.run(600.0)
    assert (rig.count("delivered"), rig.paths.held_vmtas()) == (2, {})


BIG = '[provider.big]\ndomains = ["x.example", "y.example"]\n[domain."y.example"]\nmax_connections = 2\n'


@scene
async def test_scope_provider_holds_the_vmta_for_its_domains_with_sections_and_for_nobody_else() -> None:
    rig = RulesRig(RETRY + BIG + hold(scope="provider"), vmtas=TWO)
    for path in ("x.example", "y.example", "z.example"):
        rig.paths.path("v1", rig.paths.policies.destination(path, path, ()), "")
    rig.script(MAIL=[TOO_MUCH])
    rig.accept(make_delivery("x.example"))
    await rig.run(5.0)
    now = rig.loop.time()
    held = {path.destination for path in rig.paths.paths.values() if path.hold_in_force(now)}
    assert (held, rig.keys) == ({"big", "y.example"}, ["stop@v1/big"])
    rig.accept(make_delivery("z.example"))
    await rig.run(5.0)
    assert rig.count("delivered") == 1


@scene
async def test_scope_provider_of_a_site_without_one_is_the_path_alone() -> None:
    rig = RulesRig(RETRY + hold(scope="provider"))
    rig.script(MAIL=[TOO_MUCH])
    rig.accept(make_delivery("x.example"))
    await rig.run(5.0)
    rig.accept(make_delivery("z.example"))
    await rig.run(5.0)
    assert (rig.count("delivered"), rig.keys) == (1, ["stop@v1/mx.x.example"])


@scene
async def test_scope_customer_holds_that_customers_mail_and_lets_others_pass() -> None:
    rig = RulesRig(RETRY + hold(scope="customer"))
    rig.script(MAIL=[TOO_MUCH])
    rig.accept(*[make_delivery(customer="acme") for _ in range(10)])
    await rig.run(0.5)
    rig.accept(*[make_delivery(customer="beta") for _ in range(10)])
    await rig.run(100.0)
    assert [event.customer for event in rig.told("delivered")] == ["beta"] * 10
    assert rig.keys == ["stop@v1/mx.x.example/acme"]
    (path,) = rig.paths.paths.values()
    assert rig.dispatcher.decisions[path].reason.startswith("held: customer acme: rule stop: 421 4.3.0")
    await rig.run(600.0)
    assert rig.count("delivered") == 20


@scene
async def test_a_held_customers_mail_goes_by_another_vmta() -> None:
    rig = RulesRig(RETRY + hold(scope="customer"), vmtas=TWO)
    rig.script(MAIL=[TOO_MUCH])
    rig.accept(*[make_delivery() for _ in range(10)])
    await rig.run(100.0)
    assert [event.vmta for event in rig.told("delivered")] == ["v2"] * 10


# -- slow ---------------------------------------------------------------------------------------------


def slow(**keys: Any) -> str:
    keys = {"name": "ease", "code": 450, "do": "slow", "for": "10m", **keys}
    return rule(**keys)


@scene
async def test_slow_takes_half_of_both_unless_told_and_gives_it_back_in_steps() -> None:
    rig = RulesRig('[default]\nmax_connections = 16\nmax_message_rate = "160/s"\nretry = ["1m"]\n' + slow())
    rig.script(RCPT=[LATER])
    rig.accept(make_delivery())
    await rig.run(1.0)
    (path,) = rig.paths.paths.values()
    seen = []
    for _ in range(22):
        seen.append((path.max_connections, path.max_message_rate.count if path.max_message_rate else 0))
        await rig.run(60.0)
    assert seen[:10] == [(8, 80)] * 10
    assert seen[-1] == (16, 160)
    assert sorted(seen) == seen
    assert len(set(seen)) == 6
    assert (path.ceilings, rig.keys) == ((), [])


@scene
async def test_slow_at_once_gives_all_back_at_the_end_of_its_time() -> None:
    rig = RulesRig("[default]\nmax_connections = 16\n" + slow(connections=3, recover="at_once"))
    rig.script(RCPT=[LATER])
    rig.accept(make_delivery())
    await rig.run(590.0)
    (path,) = rig.paths.paths.values()
    assert (path.max_connections, path.max_message_rate) == (3, None)
    await rig.run(20.0)
    assert path.max_connections == 16


@scene
async def test_slow_by_value_names_what_binds() -> None:
    rig = RulesRig('[default]\nretry = ["1m"]\n' + slow(rate="2/min"))
    rig.script(RCPT=[LATER])
    rig.accept(*[make_delivery() for _ in range(30)])
    await rig.run(300.0)
    (path,) = rig.paths.paths.values()
    assert rig.dispatcher.decisions[path].reason.startswith("message rate of rule ease spent")
    assert 8 <= rig.wrote() <= 12


@scene
async def test_slow_takes_a_further_step_for_what_is_said_a_minute_later() -> None:
    rig = RulesRig("[default]\nmax_connections = 16\nretry = ['1m']\n" + slow())
    rig.script(RCPT=LATER)
    rig.accept(*[make_delivery() for _ in range(30)])
    await rig.run(1.0)
    (path,) = rig.paths.paths.values()
    assert path.max_connections == 8
    await rig.run(70.0)
    assert path.max_connections == 4
    await rig.run(700.0)
    assert path.max_connections == 1


@scene
async def test_successes_take_a_step_back_each_before_its_time() -> None:
    rig = RulesRig("[default]\nmax_connections = 16\nretry = ['1m']\n" + slow(successes=10))
    rig.script(RCPT=[LATER])
    rig.accept(make_delivery())
    await rig.run(2.0)
    (path,) = rig.paths.paths.values()
    assert (path.max_connections, path.heeds_successes) == (8, True)
    rig.accept(*[make_delivery() for _ in range(25)])
    await rig.run(5.0)
    assert 8 < path.max_connections < 16
    rig.accept(*[make_delivery() for _ in range(25)])
    await rig.run(5.0)
    assert (path.max_connections, path.heeds_successes, rig.keys) == (16, False, [])


@scene
async def test_sessions_above_the_bound_end() -> None:
    rig = RulesRig("[default]\nmax_connections = 10\n" + slow(connections=2))
    ends = iter([None] * 40 + [LATER] + [None] * 1000)
    rig.answer = lambda path, site: ScriptedPeer(
        lambda line: next(ends) if line == "." else None, latency_s=0.1
    )
    rig.accept(*[make_delivery() for _ in range(200)])
    await rig.run(20.0)
    assert len([session for session in rig.sessions if not session.is_quitting]) <= 2


# -- what becomes of the recipient ----------------------------------------------------------------------


@scene
async def test_bounce_ends_the_recipient_whatever_the_code_says() -> None:
    rig = RulesRig(RETRY + rule(name="end", match="never", do="bounce", samples=["450 never"]))
    rig.script(RCPT=["450 4.2.1 never here"])
    rig.accept(make_delivery(recipients=2))
    await rig.run(5.0)
    (bounced,) = rig.told("bounced")
    assert (bounced.recipient, bounced.reply_rule, bounced.action) == ("u0@x.example", "end", "give_up")
    assert bounced.reply is not None
    assert not bounced.reply.synthetic
    assert (rig.count("delivered"), rig.keys) == (1, [])


@scene
async def test_retry_is_not_before_its_time_and_saves_what_a_5xx_refuses() -> None:
    rig = RulesRig(RETRY + rule(name="wait", code="5xx", do="retry", **{"in": "1h"}))
    rig.script(RCPT=["550 5.1.1 no such user"])
    rig.accept(make_delivery())
    await rig.run(3500.0)
    (deferred,) = rig.told("deferred")
    assert (deferred.reply_rule, deferred.action) == ("wait", "retry")
    assert 3599 < deferred.due_at - deferred.time < 3601
    assert rig.wrote() == 1
    await rig.run(200.0)
    assert rig.count("delivered") == 1


@scene
async def test_retry_never_shortens_what_the_curve_says() -> None:
    rig = RulesRig('[default]\nretry = ["2h"]\n' + rule(name="wait", code=450, do="retry", **{"in": "1h"}))
    rig.script(RCPT=[LATER])
    rig.accept(make_delivery())
    await rig.run(5.0)
    (deferred,) = rig.told("deferred")
    assert deferred.due_at - deferred.time == pytest.approx(7200.0, rel=0.01)


@scene
async def test_retry_by_another_vmta_goes_by_another() -> None:
    rig = RulesRig(RETRY + rule(name="turn", code=450, do="retry", vmta="other"), vmtas=TWO)
    rig.script(RCPT=[LATER])
    rig.accept(make_delivery())
    await rig.run(100.0)
    (deferred,), (delivered,) = rig.told("deferred"), rig.told("delivered")
    assert {deferred.vmta, delivered.vmta} == {"v1", "v2"}


# -- all that waits -------------------------------------------------------------------------------------


@scene
async def test_bounce_waiting_ends_what_is_ready_on_disk_and_yet_to_come() -> None:
    waiting = rule(name="purge", code=554, do="bounce", scope="waiting", **{"for": "10m"})
    rig = RulesRig('[default]\nmax_connections = 1\nready_limit = 60\nretry = ["1m"]\n' + waiting)
    later = [make_delivery() for _ in range(5)]
    for delivery in later:
        delivery.due_at += 30_000.0
    rig.accept(*later)
    other = make_delivery(customer="beta")
    rig.script(RCPT=["554 5.7.1 sender domain blocked"])
    rig.accept(*[make_delivery() for _ in range(200)], other, make_delivery("y.example"))
    await rig.run(20.0)
    bounced = rig.told("bounced")
    assert len(bounced) == 205
    assert {event.customer for event in bounced} == {"acme"}
    ours = [event for event in bounced if event.reply is not None and event.reply.synthetic]
    assert len(ours) == 204
    assert ours[0].reply is not None
    assert str(ours[0].reply) == ("550 5.7.1 bounced by rule purge after: 554 5.7.1 sender domain blocked")
    assert {event.reply_rule for event in bounced} == {"purge"}
    assert {(event.customer, event.domain) for event in rig.told("delivered")} == {
        ("beta", "x.example"),
        ("acme", "y.example"),
    }
    rig.accept(make_delivery())
    await rig.run(1.0)
    assert len(rig.told("bounced")) == 206
    assert rig.reacting.fired["purge"] == 1
    await rig.run(600.0)
    assert (rig.keys, rig.readahead.refuse) == ([], None)
    rig.accept(make_delivery())
    await rig.run(1.0)
    assert (rig.count("delivered"), rig.store.count()) == (3, 0)


@scene
async def test_bounce_waiting_that_is_cancelled_gives_back_what_it_has_in_hand() -> None:
    waiting = rule(name="purge", code=554, do="bounce", scope="waiting", **{"for": "10m"})
    rig = RulesRig("[default]\nmax_connections = 1\n" + waiting)
    rig.script(RCPT=["554 5.7.1 sender domain blocked"])
    rig.accept(*[make_delivery() for _ in range(200)])
    await rig.run(0.05, 0.001)
    assert 1 < rig.count("bounced") < 200
    assert rig.reacting.end(rig.keys[0], "test")
    await rig.run(10.0)
    assert rig.count("delivered") > 1
    assert rig.count("delivered") + rig.count("bounced") == 200
    assert not rig.readahead.in_memory


# -- hosts ----------------------------------------------------------------------------------------------


@scene
async def test_skip_mx_and_no_tls_reach_the_host_for_their_time() -> None:
    text = rule(name="leave", code=421, do="skip_mx", **{"for": "10m"})
    rig = RulesRig(RETRY + text + rule(name="clear", code=454, do="no_tls", **{"for": "5m"}))
    rig.script(RCPT=[TOO_MUCH, "454 4.7.0 TLS not available"])
    rig.accept(*[make_delivery() for _ in range(2)])
    await rig.run(200.0)
    assert set(rig.keys) == {"leave@mx", "clear@mx"}
    assert (rig.reacting.is_skipped("mx"), rig.reacting.is_skipped("mx2")) == (True, False)
    assert rig.reacting.is_in_clear("mx")
    await rig.run(300.0)
    assert not rig.reacting.is_in_clear("mx")
    await rig.run(300.0)
    assert not rig.reacting.is_skipped("mx")


# -- which rule -----------------------------------------------------------------------------------------


@scene
async def test_notify_does_nothing_and_lets_the_search_go_on() -> None:
    rig = RulesRig(RETRY + rule(name="tell", code=421, do="notify") + hold())
    rig.script(MAIL=[TOO_MUCH])
    rig.accept(make_delivery())
    await rig.run(5.0)
    assert [name for name, _ in rig.fired] == ["tell", "stop"]
    assert rig.told("deferred")[0].reply_rule == "stop"


@scene
async def test_a_ladder_slows_at_the_first_and_holds_at_the_third() -> None:
    ladder = rule(name="third", code=450, do="hold", after="3/10m", **{"for": "1h"}) + slow(name="first")
    rig = RulesRig('[default]\nmax_connections = 4\nretry = ["1m"]\n' + ladder)
    rig.script(RCPT=LATER)
    rig.accept(make_delivery())
    await rig.run(90.0)
    assert rig.keys == ["first@v1/mx.x.example"]
    await rig.run(200.0)
    assert set(rig.keys) == {"first@v1/mx.x.example", "third@v1/mx.x.example"}
    assert rig.reacting.matched == {"third": 3, "first": 3}
    assert rig.reacting.fired == {"third": 1, "first": 2}
    assert rig.wrote() == 3


@scene
async def test_trigger_counts_within_its_window_only() -> None:
    rig = RulesRig('[default]\nretry = ["10m"]\n' + hold(after="2/5m"))
    rig.script(MAIL=TOO_MUCH)
    rig.accept(make_delivery())
    await rig.run(3000.0)
    assert rig.reacting.matched["stop"] > 3
    assert rig.keys == []


@scene
async def test_by_category() -> None:
    rig = RulesRig(RETRY + rule(name="cat", category="rate-limited", do="hold", **{"for": "10m"}))
    rig.script(RCPT=["450 4.7.1 rate limit exceeded, try again later"])
    rig.accept(make_delivery())
    await rig.run(5.0)
    assert rig.keys == ["cat@v1/mx.x.example"]


def whence(rig: RulesRig, phase: str = "mail") -> Whence:
    destination = Destination("mx.x.example", "site", "", "")
    path = rig.paths.path("v1", destination, "")
    return Whence(path, destination, "acme", "mx.x.example", phase)


@scene
async def test_what_we_say_ourselves_meets_no_rule() -> None:
    rig = RulesRig(RETRY + hold())
    assert rig.reacting.heard(make_reply(421, "4.4.2", "connection lost"), whence(rig)) is None
    rig.answer = lambda path, site: REFUSED
    rig.accept(make_delivery())
    await rig.run(10.0)
    assert (rig.keys, rig.reacting.matched) == ([], {})


@scene
async def test_phase_is_what_the_reply_answers() -> None:
    rig = RulesRig(RETRY + hold(phase=["rcpt", "connect"]))
    assert rig.reacting.heard(Reply(421, "4.7.0", "no"), whence(rig, "mail")) is None
    found = rig.reacting.heard(Reply(421, "4.7.0", "no"), whence(rig, "connect"))
    assert found is not None
    assert found.name == "stop"


@pytest.mark.parametrize(
    ("verb", "phase"), [("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data"), ("END", "data")]
)
def test_each_phase_of_a_transaction_is_heard_as_what_it_is(verb: str, phase: str) -> None:
    async def main() -> None:
        rig = RulesRig(RETRY + hold(phase=phase))
        rig.script(**{verb: [TOO_MUCH]})
        rig.accept(make_delivery())
        await rig.run(10.0)
        assert rig.reacting.fired == {"stop": 1}

    run_virtually(main())


# -- operators, reloads, restarts -------------------------------------------------------------------------


@scene
async def test_an_operator_ends_a_hold_and_mail_goes_at_once() -> None:
    rig = RulesRig(RETRY + hold())
    rig.script(MAIL=[TOO_MUCH])
    rig.accept(*[make_delivery() for _ in range(5)])
    await rig.run(5.0)
    assert not rig.reacting.end("stop@v2/mx.x.example", "test")
    assert rig.reacting.end("stop@v1/mx.x.example", "test")
    await rig.run(2.0)
    assert rig.count("delivered") == 4


@scene
async def test_reload_ends_what_rules_that_are_gone_have_set_off_and_nothing_else() -> None:
    rig = RulesRig("[default]\nmax_connections = 16\n" + slow() + hold())
    rig.script(RCPT=[LATER, TOO_MUCH])
    rig.accept(*[make_delivery() for _ in range(2)])
    await rig.run(5.0)
    assert len(rig.keys) == 2
    (path,) = rig.paths.paths.values()
    rig.reload("[default]\nmax_connections = 6\n" + slow(connections=0.25))
    assert rig.keys == ["ease@v1/mx.x.example"]
    assert path.hold_in_force(rig.loop.time()) is None
    assert path.max_connections == 6
    rig.reload("")
    assert (rig.keys, path.ceilings) == ([], ())


@scene
async def test_two_rules_on_one_path_end_each_for_itself() -> None:
    rig = RulesRig(RETRY + hold() + rule(name="long", code=450, do="hold", **{"for": "20m"}))
    there = whence(rig)
    rig.reacting.heard(Reply(421, "", "a"), there)
    rig.reacting.heard(Reply(450, "", "b"), there)
    await rig.run(610.0)
    hold_left = there.path.hold_in_force(rig.loop.time())
    assert hold_left is not None
    assert hold_left.reason == "rule long: 450 b"


@scene
async def test_what_a_thousand_replies_say_is_told_once_a_minute_and_counted_each_time() -> None:
    rig = RulesRig(rule(name="tell", code=450, do="notify"))
    there = whence(rig)
    for _ in range(1000):
        rig.reacting.heard(Reply(450, "", "b"), there)
    assert rig.fired == [("tell", "v1/mx.x.example")]
    rows = rig.counters.snapshot()["counters"]
    assert {tuple(labels): value for name, labels, value in rows if name == "mailrail_reply_rules_total"} == {
        ("tell", "match"): 1000,
        ("tell", "notify"): 1000,
    }
    await rig.run(61.0)
    rig.reacting.heard(Reply(450, "", "b"), there)
    assert len(rig.fired) == 2


@scene
async def test_sites_that_share_a_name_with_no_rules_cost_no_search() -> None:
    rig = RulesRig("")
    rig.resolver.sites["x.example"] = make_site([Host("mx.x.example")])
    assert rig.reacting.heard(Reply(450, "", "b"), whence(rig)) is None
    assert rig.reacting.matched == {}
