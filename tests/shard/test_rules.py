"""shard.rules: wired as in a shard; restarts, moves, other shards, operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine.core.reply import Reply
from engine.delivery.flight import NOBODY
from engine.delivery.hearing import Whence
from engine.policy.model import Destination
from engine.shard.rules import KEEP_AFTER_S, Rules
from engine.shard.undelivered import Undelivered
from tests.fakes.delivery_rig import Rig, make_delivery, make_policies
from tests.fakes.rig_engine import make_engine
from tests.fakes.rules_rig import rule
from tests.fakes.virtual_loop import run_virtually

HOLD = rule(name="stop", code=421, do="hold", **{"for": "1h"})
SKIP = rule(name="leave", code=450, do="skip_mx", **{"for": "1h"})
ENDS = rule(name="end", match="never", do="bounce", samples=["451 never"])
SITE = Destination("mx.x.example", "site", "", "")


class Peers:
    """The links of one shard; `others` hear what it tells."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[int, Any], None]] = {}
        self.others: list[Shard] = []

    @property
    def up(self) -> list[int]:
        return [other.engine.shard for other in self.others]

    def add_handlers(self, handlers: dict[str, Callable[[int, Any], None]]) -> None:
        self.handlers |= handlers

    def notify(self, shard: int, kind: str, body: Any) -> None:
        (other,) = [each for each in self.others if each.engine.shard == shard]
        other.peers.handlers[kind](0, body)


class Opener:
    """Sessions, as far as rules stop them."""

    def trim(self) -> None:
        pass

    def stop_opening(self, paths: Any) -> None:
        pass

    def leave_host(self, host: str) -> None:
        pass


class Shard:
    """A shard with rules, whose files are in a directory."""

    def __init__(self, data_dir: Path, number: int = 0, policy: str = HOLD + SKIP + ENDS) -> None:
        (data_dir / f"shard-{number}").mkdir(exist_ok=True)
        self.rig = Rig(policy)
        self.peers = Peers()
        self.events: list[Any] = []
        settings = SimpleNamespace(engine=SimpleNamespace(data_dir=str(data_dir)))
        self.engine = make_engine(
            self.rig,
            shard=number,
            model=SimpleNamespace(settings=settings, policies=self.rig.paths.policies),
            opener=Opener(),
            dispositions=self.rig.dispositions,
            exchange=SimpleNamespace(peers=self.peers),
            events=SimpleNamespace(add=self.events.append),
            policy_for=self.rig.policy_for,
        )
        self.rules = Rules(self.engine)
        self.rules.open()

    def hear(self, reply: Reply, vmta: str = "v1") -> Any:
        path = self.rig.paths.path(vmta, SITE, "")
        return self.rules.reacting.heard(reply, Whence(path, SITE, "acme", "mx.x.example", "mail"))

    @property
    def keys(self) -> list[str]:
        return [row["key"] for row in self.rules.describe_all()]


TOO_MUCH, LATER = Reply(421, "4.7.0", "too much"), Reply(450, "4.7.1", "later")


def test_a_process_that_was_killed_leaves_what_was_in_force_to_the_next(tmp_path: Path) -> None:
    async def main() -> None:
        first = Shard(tmp_path)
        first.hear(TOO_MUCH)
        await first.rig.run(KEEP_AFTER_S + 0.1)
        second = Shard(tmp_path)
        assert second.keys == ["stop@v1/mx.x.example"]
        path = second.rig.paths.path("v1", SITE, "")
        assert path.hold_in_force(second.rig.loop.time()) is not None

    run_virtually(main())


def test_a_stop_keeps_what_has_just_begun(tmp_path: Path) -> None:
    async def main() -> None:
        first = Shard(tmp_path)
        first.hear(TOO_MUCH)
        first.rules.close()
        assert Shard(tmp_path).keys == ["stop@v1/mx.x.example"]

    run_virtually(main())


def test_what_an_operator_ended_stays_ended(tmp_path: Path) -> None:
    async def main() -> None:
        first = Shard(tmp_path)
        first.hear(TOO_MUCH)
        await first.rig.run(1.0)
        assert first.rules.cancel("stop@nobody") == {"cancelled": 0}
        assert first.rules.cancel("stop@v1/mx.x.example") == {"cancelled": 1}
        await first.rig.run(1.0)
        assert Shard(tmp_path).keys == []

    run_virtually(main())


def test_a_vmta_that_moves_takes_its_reactions_along(tmp_path: Path) -> None:
    async def main() -> None:
        old, new = Shard(tmp_path, 0), Shard(tmp_path, 1)
        old.hear(TOO_MUCH)
        old.rig.paths.disown(["v1"])
        old.rules.let_go(["v1"])
        assert old.keys == []
        new.rules.take_over()
        assert new.keys == ["stop@v1/mx.x.example"]

    run_virtually(main())


def test_what_reaches_a_host_is_told_to_the_other_shards_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        here, there = Shard(tmp_path, 0), Shard(tmp_path, 1)
        here.peers.others.append(there)
        here.hear(LATER)
        here.hear(TOO_MUCH)
        assert there.keys == ["leave@mx.x.example"]
        assert there.rules.reacting.is_skipped("mx.x.example")

    run_virtually(main())


def test_a_rule_that_is_gone_by_a_reload_ends_what_it_had_in_force(tmp_path: Path) -> None:
    async def main() -> None:
        shard = Shard(tmp_path)
        shard.hear(TOO_MUCH)
        shard.hear(LATER)
        shard.rules.use(make_policies(SKIP))
        assert shard.keys == ["leave@mx.x.example"]

    run_virtually(main())


def test_an_event_tells_which_rule_fired_for_what(tmp_path: Path) -> None:
    async def main() -> None:
        shard = Shard(tmp_path)
        shard.hear(TOO_MUCH)
        (event,) = shard.events
        assert (event.event, event.reply_rule, event.action, event.vmta) == ("rule", "stop", "hold", "v1")
        assert (event.reply, event.destination) == (TOO_MUCH, "mx.x.example")
        assert event.reason == "hold for 1h: v1/mx.x.example"

    run_virtually(main())


def test_rows_of_a_destination_are_its_rules_in_order_and_what_is_in_force(tmp_path: Path) -> None:
    async def main() -> None:
        shard = Shard(tmp_path)
        shard.hear(TOO_MUCH)
        rules, in_force = shard.rules.describe_for(SITE, "v1")
        assert [(row["rule"], row["matched"], row["fired"]) for row in rules][:3] == [
            ("stop", 1, 1),
            ("leave", 0, 0),
            ("end", 0, 0),
        ]
        assert rules[0]["when"] == "code 421"
        assert rules[0]["where"] == "test.toml:1"
        (row,) = in_force
        assert (row["key"], row["strength"], row["reply"]) == (
            "stop@v1/mx.x.example",
            "5/5",
            "421 4.7.0 too much",
        )
        assert 3590 < row["until_at"] - row["since_at"] <= 3600
        assert shard.rules.describe_for(SITE, "v2")[1] == []
        other = Destination("mx.y.example", "site", "", "")
        assert shard.rules.describe_for(other, "")[1] == []

    run_virtually(main())


def test_the_delivery_that_made_a_path_connect_bears_what_the_rule_says(tmp_path: Path) -> None:
    async def main() -> None:
        shard = Shard(tmp_path)
        rig = shard.rig
        queue = rig.sites.find("pool", "acme", "x.example", rig.resolver.lookup("x.example"))
        assert queue is not None
        never = Reply(451, "", "never here")
        deliveries = [make_delivery(), make_delivery()]
        shard.hear(never)
        path, undelivered = rig.paths.path("v1", SITE, ""), Undelivered(shard.engine)
        for delivery, reply in zip(deliveries, (never, Reply(451, "", "never here")), strict=True):
            queue.queue.push(delivery, 10)
            undelivered.unreachable([queue], reply, path, NOBODY)
        assert [(event.event, event.reply_rule) for event in rig.events] == [
            ("bounced", "end"),
            ("deferred", ""),
        ]

    run_virtually(main())
