"""build: what the engine of one shard says by itself, between the objects that it wires."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from engine.queue.path import Path
from engine.shard.build import Engine
from tests.fakes.delivery_rig import Rig, make_delivery
from tests.fakes.virtual_loop import run_virtually


@pytest.mark.parametrize("is_held", [False, True])
def test_what_expires_names_a_reason_only_where_something_stopped_it(is_held: bool) -> None:
    """Of a deferred message the last decision is that nothing waits: that is none."""

    async def main() -> None:
        rig = Rig()
        rig.accept(make_delivery())
        await rig.run(1.0)
        (site_queue,) = rig.sites
        (path,) = site_queue.paths
        assert isinstance(path, Path)
        rig.dispatcher.kick(path)
        assert rig.dispatcher.decisions[path].reason == "nothing waits"
        if is_held:
            path.hold("operator", "paused", math.inf)
        engine: Any = SimpleNamespace(loop=rig.loop, dispatcher=rig.dispatcher, dispositions=rig.dispositions)
        late = make_delivery()
        Engine._expire(engine, late, site_queue.policy_of("acme"), site_queue)
        (event,) = rig.told("expired")
        assert event.reply is not None
        assert event.reason == ("held: paused" if is_held else "")
        assert ("it waited for" in event.reply.text) is is_held

    run_virtually(main())
