"""An engine of one shard, as far as what looks at it needs one: the parts of a Rig and what a test adds."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from engine.delivery.peer_memory import PeerMemory
from tests.fakes.delivery_rig import Rig
from tests.fakes.virtual_loop import run_virtually


def make_engine(rig: Rig, **others: Any) -> Any:
    """Return an engine made of these parts; `others` come beside them or in their place."""
    parts = {
        "loop": rig.loop,
        "counters": rig.counters,
        "store": rig.store,
        "sites": rig.sites,
        "paths": rig.paths,
        "window": rig.window,
        "readahead": rig.readahead,
        "dispatcher": rig.dispatcher,
        "resolver": rig.resolver,
        "rules": SimpleNamespace(describe_for=lambda destination, vmta: ([], [])),
        "opener": SimpleNamespace(sessions=rig.sessions, memory=PeerMemory()),
    }
    return SimpleNamespace(**(parts | others))


def run_shard(make: Callable[[], Any], scenario: Callable[[Any], Any]) -> None:
    """Run a scenario with a new shard, which has a `rig`, on a virtual loop."""

    async def begin() -> None:
        shard = make()
        await scenario(shard)
        shard.rig.close()

    run_virtually(begin())
