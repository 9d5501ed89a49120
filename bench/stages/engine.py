"""The objects of a shard, wired as shard.build does it and never opened, with stand-ins for their neighbors.

The loop that they were made on rests while a stage is measured, so nothing connects and no timer fires.

Owns: deliveries that look like mail, a transport that swallows, a session that only takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.core.envelope import Delivery, Envelope, MessageIds
from engine.delivery.site_queue import SiteQueue
from engine.loading import build_model, load_texts
from engine.net.site import Site
from engine.queue.path import Path as EnginePath
from engine.queue.path import SiteDemand
from engine.rig.prose import make_bodies, make_header
from engine.shard.build import Engine
from engine.telemetry.events import Peer

SIZE = 10_000
SENDER = "bench@source.example"
CUSTOMER = POOL = "bench"
DOMAINS = 50


class Wired:
    """An engine, its one ready queue, and messages for it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ids = MessageIds(0, b"benc")
        self.messages = [make_header(f"bench-{n}", SENDER, f"u@d{n}.bench.example", 0.0) + body
                         for n, body in enumerate(make_bodies(SIZE))]  # fmt: skip
        site = engine.resolver.lookup("d0.bench.example")
        assert site is not None
        self.site: Site = site
        found = engine.sites.find(POOL, CUSTOMER, "d0.bench.example", site)
        assert found is not None
        self.site_queue: SiteQueue = found

    def make_deliveries(self, count: int) -> list[Delivery]:
        """Return deliveries of one message each, over 50 domains."""
        return [self._make_delivery(number) for number in range(count)]

    def _make_delivery(self, number: int) -> Delivery:
        now = time.time()
        message = self.messages[number % len(self.messages)]
        domain = f"d{number % DOMAINS}.bench.example"
        envelope = Envelope(SENDER, CUSTOMER, POOL, now, len(message), "smtp", peer="127.0.0.1")
        return Delivery(self.ids.make(now), 0, envelope, domain, [f"u{number}@{domain}"], now, message)

    def path(self) -> EnginePath:
        return self.site_queue.paths[0]


async def wire(config: Path) -> Wired:
    """Build a shard's objects from a configuration."""
    model = build_model(load_texts(str(config)))
    return Wired(Engine(0, 1, model, b"benc", dict.fromkeys(model.settings.vmtas, 0)))


class Taker:
    """What the dispatcher sees of a session."""

    taken_from: SiteQueue

    def __init__(self, wired: Wired) -> None:
        self.path = wired.path()
        self.demand: SiteDemand = self.path.sites[wired.site.name]
        self.site_queues = [wired.site_queue]
        self.opened_at = 0.0
        self.messages = 0
        self.reserved_at = 0.0

    def wake(self) -> None:
        pass

    def quit(self) -> None:
        pass


class Swallower:
    """A transport that writes nowhere."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        self._peer = peer
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._peer, 1) if name in ("peername", "sockname") else default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class NoStore:
    """A store that says yes at once."""

    def put(
        self, _deliveries: list[Delivery], _message: bytes, done: Callable[[Any], None], **_: Any
    ) -> None:
        done(None)

    def amend(self, delivery: Delivery, due_at: float) -> None:
        delivery.due_at = due_at

    def remove(self, delivery: Delivery) -> None:
        pass


PEER = Peer("mx.bench.example", "127.0.0.94", 25)
