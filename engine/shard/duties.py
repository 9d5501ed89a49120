"""What the supervisor asks of a shard.

    configure {generation texts assignment listeners shard shards incarnation adopt_stores recounted_at
               poison is_draining}
    release   {vmtas grace_s} -> {vmta: state}     end their sessions, export what they have spent
    adopt     {vmtas: {name: state}}               offered before the plan: taken where it gives the addresses
    peer      {shard incarnation|None}             another shard is up, or down
    drain     {on}      stop {grace_s}      report {} -> metrics      query {what filter limit} -> rows
    retry     {id} -> {due released under_way}     a message's deliveries are due now
    cancel_rule {key} -> {cancelled}               a rule that fired for replies ends

Owns: the order in which a shard takes these.
Never: builds objects (build), listens (feeds), words answers (answers).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.control.bus import Handler, Link
from engine.control.fds import ListenerInbox
from engine.core.errors import ConfigError, StoreError
from engine.delivery.paths import decode_spent, encode_spent
from engine.loading import Texts, build_model
from engine.shard.answers import Answers
from engine.shard.build import Engine
from engine.shard.feeds import Feeds
from engine.shard.retrying import retry_message
from engine.telemetry.log import Log, configure_log

RELEASE_POLL_S = 0.05
# Past the grace: sessions that were aborted are gone within a turn of the loop, and a commit takes
# milliseconds. Two of these are less than what the supervisor waits beyond the grace.
CUT_OFF_S = 2.0

log = Log("shard")


class Duties:
    """Answers the supervisor, and so runs the shard."""

    def __init__(self, inbox: ListenerInbox, stop: Callable[[], None]) -> None:
        self._inbox = inbox
        self._stop = stop
        self._engine: Engine | None = None
        self._feeds: Feeds | None = None
        self._adopted: dict[str, bytes] = {}
        self._generation = 0
        self.link: Link

    def handlers(self) -> dict[str, Handler]:
        """Return what the control link calls."""
        return {
            "configure": self._configure,
            "release": self._release,
            "adopt": self._adopt,
            "peer": self._peer,
            "drain": self._drain,
            "stop": self._stop_gracefully,
            "report": self._report,
            "query": self._query,
            "retry": self._retry,
            "cancel_rule": self._cancel_rule,
        }

    def close(self) -> None:
        """Close everything; the process ends."""
        if self._feeds is not None:
            self._feeds.close()
        if self._engine is not None:
            self._engine.close()

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "configure comes first"
        return self._engine

    # -- configuration ----------------------------------------------------------------------------

    async def _configure(self, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            model = build_model(msgspec.convert(body["texts"], Texts))
            settings = model.settings.engine
            configure_log(
                settings.log_level,
                process=f"shard-{body['shard']}",
                is_json=settings.log_format == "json",
            )
            if self._engine is None:
                engine = Engine(body["shard"], body["shards"], model, body["incarnation"], body["assignment"])
                await engine.open()
                self._engine = engine
                self._feeds = Feeds(engine, self._inbox)
            else:
                self._engine.reconfigure(model, body["assignment"], frozenset(self._adopted))
            assert self._feeds is not None
            self._restore_limits()
            self._engine.undelivered.hold_poison(body.get("poison", ()))
            self._engine.orphans.adopt(body.get("adopt_stores", ()), body.get("recounted_at", 0.0))
            await self._feeds.use(model.settings, body["listeners"])
            self._set_draining(bool(body.get("is_draining")))
        except (ConfigError, StoreError, OSError) as error:  # OSError: a directory, a socket; no bug of ours
            return {"error": str(error)}
        self._generation = body["generation"]
        log.info("configured", generation=self._generation, vmtas=len(self._engine.paths.vmtas))
        return {}

    def _restore_limits(self) -> None:
        rows = [row for state in self._adopted.values() for row in decode_spent(state)]
        self._adopted.clear()
        self.engine.paths.restore_limits(rows, self.engine.loop.time(), time.time())
        self.engine.upkeep.take_over()
        self.engine.rules.take_over()

    async def _release(self, body: Mapping[str, Any]) -> dict[str, bytes]:
        """End the sessions of vmtas that move, and export what their addresses have spent."""
        engine = self.engine
        names = set(body["vmtas"])
        deadline = engine.loop.time() + body["grace_s"]
        engine.readahead.put_all_back()
        engine.disown(names)
        engine.sites.clear(engine.model.settings.pools, engine.share_of)
        limits = engine.paths.limits_of(names)
        engine.opener.give_up(limits)
        while any(each.slots.in_use(engine.loop.time()) for each in limits):
            if engine.loop.time() >= deadline:
                engine.opener.abort(limits)
                deadline += 10.0
            await asyncio.sleep(RELEASE_POLL_S)
        now, unix_now = engine.loop.time(), time.time()
        states = {name: encode_spent(engine.paths.export_limits([name], now, unix_now)) for name in names}
        engine.upkeep.let_go(names)
        engine.rules.let_go(names)
        engine.paths.drop_limits(names)
        return states

    def _adopt(self, body: Mapping[str, Any]) -> None:
        self._adopted.update(body["vmtas"])

    def _peer(self, body: Mapping[str, Any]) -> None:
        self.engine.exchange.set_peer(body["shard"], body.get("incarnation"))

    # -- life -------------------------------------------------------------------------------------

    def _drain(self, body: Mapping[str, Any]) -> None:
        self._set_draining(bool(body["on"]))

    def _set_draining(self, is_draining: bool) -> None:
        self.engine.acceptor.is_draining = is_draining
        if self._feeds is not None:
            self._feeds.set_draining(is_draining)

    def _retry(self, body: Mapping[str, Any]) -> dict[str, int]:
        return retry_message(self.engine, bytes.fromhex(body["id"]), time.time())

    def _cancel_rule(self, body: Mapping[str, Any]) -> dict[str, int]:
        return self.engine.rules.cancel(body["key"])

    async def _stop_gracefully(self, body: Mapping[str, Any]) -> None:
        """Let transactions end within the grace, cut off the rest; the process ends once this is answered."""
        if self._engine is None:
            asyncio.get_running_loop().call_soon(self._stop)
            return
        engine = self._engine
        deadline = engine.loop.time() + body["grace_s"]
        assert self._feeds is not None
        engine.stop_sending()
        await self._feeds.stop(body["grace_s"])
        while engine.opener.sessions and engine.loop.time() < deadline:  # noqa: ASYNC110 (at stop only)
            await asyncio.sleep(RELEASE_POLL_S)
        if engine.opener.sessions:
            await self._cut_off()
        engine.loop.call_later(0.01, self._stop)

    async def _cut_off(self) -> None:
        """Abort what outlasted the grace; what it had in flight is settled, and that is on disk, first.

        A peer may have the message that it did not answer: that attempt has to be counted and told of.
        """
        engine = self.engine
        log.warning("sessions cut off at the end of the grace", sessions=len(engine.opener.sessions))
        deadline = engine.loop.time() + CUT_OFF_S
        engine.abort_sessions()
        while engine.opener.sessions and engine.loop.time() < deadline:  # noqa: ASYNC110 (at stop only)
            await asyncio.sleep(RELEASE_POLL_S)
        settled = asyncio.Event()
        engine.store.when_durable(lambda _error: settled.set())
        with contextlib.suppress(TimeoutError):  # a full disk: as after a crash
            await asyncio.wait_for(settled.wait(), CUT_OFF_S)

    # -- telling ----------------------------------------------------------------------------------

    def _report(self, _body: Any) -> dict[str, Any]:
        return self.engine.snapshot()

    def _query(self, body: Mapping[str, Any]) -> Any:
        return Answers(self.engine).answer(body["what"], body.get("filter") or {}, body.get("limit") or 100)
