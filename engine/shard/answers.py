"""What operators ask of a shard: status, paths, queues, messages, why.

    status    {} -> counts that add up over shards
    paths     {vmta destination pool} -> rows: sessions, ready, reason
    queues    {customer domain pool} -> rows: messages, ready, due
    messages  {customer domain pool} -> rows      message {id} -> one, whole
    explain   {domain vmta customer} -> the effective policy, and what binds the path now
    rules     {domain vmta} -> rules for replies in the order of their search, and what is in force

Owns: the field names of these answers (docs/admin.md).
Never: changes anything.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from engine.core.address import parse_domain
from engine.core.envelope import MESSAGE_ID_BYTES, Delivery, accepted_at
from engine.core.errors import ResolveError
from engine.core.terms import format_terms
from engine.delivery.obstacles import held_reason
from engine.delivery.peer_memory import peer_key
from engine.delivery.securing import describe_hosts
from engine.delivery.turned_away import host_key
from engine.net.site import Site
from engine.policy.explain import explain
from engine.policy.model import Destination
from engine.queue.ceilings import describe_ceiling
from engine.queue.decide import decide
from engine.queue.path import Path
from engine.security.demand import describe
from engine.shard.build import Engine
from engine.store.records import parse_queue, position, queue_name

MAX_DEPTH = 100_000  # deliveries of one queue that are counted
EVER_MS = (1 << 62) - 1
PAGE = 500  # rows of the store read at a time

Row = dict[str, Any]


class Answers:
    """Looks at one shard for people, once: what it has found it keeps."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: dict[bytes, str] | None = None
        self._held_behind: dict[tuple[str, bytes], str] = {}

    def answer(self, what: str, criteria: Mapping[str, str], limit: int) -> Any:
        """Return the answer to one query, or a coroutine of it (explain looks the domain up)."""
        if what == "status":
            return self._status()
        if what == "message":
            return self._message(criteria["id"])
        if what == "explain":
            return self._explain(criteria)
        if what == "rules":
            return self._rules(criteria)
        if what not in ("paths", "queues", "messages"):
            return {"error": f"nothing is known of {what!r}"}
        rows = {"paths": self._paths, "queues": self._queues, "messages": self._messages}[what](
            criteria, limit
        )
        return {"rows": rows[:limit], "is_whole": len(rows) <= limit}

    # -- status -----------------------------------------------------------------------------------

    def _status(self) -> Row:
        engine = self._engine
        events: dict[str, float] = {}
        for name, values, value in engine.counters.snapshot()["counters"]:
            if name == "mailrail_messages_total":
                event = values[0]
                events[event] = events.get(event, 0) + value
        sessions = list(engine.opener.sessions)
        return {
            "stored": engine.store.count(),
            "ready": sum(len(queue.queue) for queue in engine.sites),
            "in_memory": len(engine.readahead.in_memory),
            "in_memory_bytes": engine.window.size_bytes,
            "sessions": len(sessions),
            "idle_sessions": sum(session.phase == "idle" for session in sessions),
            "vmtas": len(engine.paths.vmtas),
            "vmtas_held": len(engine.paths.held_vmtas()),
            "events": events,
            "started_at": engine.started_at,
        }

    # -- paths ------------------------------------------------------------------------------------

    def _paths(self, criteria: Mapping[str, str], limit: int) -> list[Row]:
        pools = {id(path): queue.pool for queue in self._engine.sites for path in queue.paths}
        rows = []
        for path in list(self._engine.paths.paths.values()):
            if not _matches(
                criteria, vmta=path.vmta, destination=path.destination, pool=pools.get(id(path), "")
            ):
                continue
            rows.append(self._describe_path(path))
            if len(rows) > limit:
                break
        return rows

    def _describe_path(self, path: Path) -> Row:
        now = self._engine.loop.time()
        decision = decide(path, now)
        demands = path.sites.values()
        return {
            "vmta": path.vmta,
            "destination": path.destination,
            "customer": path.customer,
            "sessions": sum(demand.sessions for demand in demands),
            "idle": sum(demand.idle for demand in demands),
            "opening": sum(demand.opening for demand in demands),
            "connections": path.limits.slots.in_use(now),
            "max_connections": path.max_connections,
            "max_message_rate": str(path.max_message_rate or "unlimited"),
            "ceilings": [describe_ceiling(ceiling) for ceiling in path.ceilings],
            "ready": sum(demand.waiting() for demand in demands),
            "reason": decision.reason,
            "is_held": path.hold_in_force(now) is not None,
            "sites": {demand.site: demand.last_failure for demand in demands if demand.failures},
        }

    # -- queues and messages ----------------------------------------------------------------------

    def _queues(self, criteria: Mapping[str, str], limit: int) -> list[Row]:
        ready: dict[tuple[str, str], int] = {}
        reasons: dict[tuple[str, str], str] = {}
        now = self._engine.loop.time()
        for site_queue in self._engine.sites:
            why = next((decide(path, now).reason for path in site_queue.paths), "")
            for delivery in site_queue.queue:
                name = (delivery.envelope.customer, delivery.domain)
                ready[name] = ready.get(name, 0) + 1
                reasons[name] = why
        rows: list[Row] = []
        for queue, due_ms in self._each_queue(criteria):
            customer, domain = parse_queue(queue)
            if not _matches(criteria, customer=customer, domain=domain, pool=self._engine.pool_of(customer)):
                continue
            messages = self._engine.store.depth(queue, MAX_DEPTH)
            rows.append(
                {
                    "customer": customer,
                    "domain": domain,
                    "messages": messages,
                    "ready": ready.get((customer, domain), 0),
                    "due_at": due_ms / 1000,
                    "reason": reasons.get((customer, domain), ""),
                }
            )
            if len(rows) > limit:
                break
        return rows

    def _each_queue(self, criteria: Mapping[str, str]) -> Iterator[tuple[bytes, int]]:
        """Yield (queue, its earliest due): just one where the criteria name it."""
        store = self._engine.store
        if criteria.get("customer") and criteria.get("domain"):
            name = queue_name(criteria["customer"], criteria["domain"])
            found = store.due_keys(name, b"", EVER_MS, 1)
            if found:
                yield name, found[0][0]
            return
        after = b""
        while rows := store.queues(PAGE, after):
            yield from rows
            after = rows[-1][0]

    def _messages(self, criteria: Mapping[str, str], limit: int) -> list[Row]:
        rows: list[Row] = []
        for queue, _ in self._each_queue(criteria):
            customer, domain = parse_queue(queue)
            if not _matches(criteria, customer=customer, domain=domain):
                continue
            for delivery in self._each_delivery(queue):
                if _matches(criteria, pool=delivery.envelope.pool):
                    rows.append(self._describe(delivery))
                if len(rows) > limit:
                    break
            if len(rows) > limit:
                break
        return rows

    def _each_delivery(self, queue: bytes) -> Iterator[Delivery]:
        """Yield the deliveries of one queue, the one due first first."""
        store = self._engine.store
        after = b""
        while keys := store.due_keys(queue, after, EVER_MS, PAGE):
            for due, key in keys:
                after = position(due, key)
                delivery = store.peek(key)
                if delivery is not None:
                    yield delivery

    def _message(self, message_id: str) -> Row | None:
        try:
            key = bytes.fromhex(message_id)
        except ValueError:
            return None
        found = self._engine.store.deliveries_of(key) if len(key) == MESSAGE_ID_BYTES else []
        if not found:
            return None
        return {"id": message_id, "deliveries": [self._describe(delivery) for delivery in found]}

    def _find_held(self) -> dict[bytes, str]:
        """Return why, by delivery of a ready queue whose every path is held; learn what is behind those."""
        held: dict[bytes, str] = {}
        now = self._engine.loop.time()
        for site_queue in self._engine.sites:
            reason = held_reason(site_queue, now)
            if reason:
                held.update((delivery.key, reason) for delivery in site_queue.queue)
                for queues in site_queue.behind.values():
                    self._held_behind.update(((site_queue.pool, queue), reason) for queue in queues)
        return held

    def _held_for(self, delivery: Delivery) -> str:
        """Return why a delivery is held, by itself or with every path that could carry it; "": it is not."""
        if delivery.held:
            return delivery.held
        if self._held is None:
            self._held = self._find_held()
        reason = self._held.get(delivery.key, "")
        if reason or delivery.key in self._engine.readahead.in_memory or delivery.due_at > time.time():
            return reason
        envelope = delivery.envelope
        return self._held_behind.get((envelope.pool, queue_name(envelope.customer, delivery.domain)), "")

    def _describe(self, delivery: Delivery) -> Row:
        envelope = delivery.envelope
        held = self._held_for(delivery)
        is_ready = delivery.key in self._engine.readahead.in_memory
        state = "held" if held else "ready" if is_ready else "scheduled"
        return {
            "id": delivery.message_id.hex(),
            "customer": envelope.customer,
            "pool": envelope.pool,
            "domain": delivery.domain,
            "sender": envelope.sender,
            "recipients": delivery.recipients,
            "size": envelope.size_bytes,
            "accepted_at": accepted_at(delivery.message_id),
            "due_at": delivery.due_at,
            "attempts": delivery.attempts,
            "last_reply": delivery.last_reply,
            "state": state,
            "held": held,
            "job": envelope.job,
            "tags": envelope.tags,
            "terms": format_terms(envelope.terms),
        }

    # -- explain ----------------------------------------------------------------------------------

    async def _explain(self, criteria: Mapping[str, str]) -> Row:
        engine = self._engine
        try:
            domain = parse_domain(criteria["domain"])
        except ValueError as error:
            return {"error": str(error)}
        customer, vmta = criteria.get("customer", ""), criteria.get("vmta", "")
        settings = engine.model.settings
        if customer and customer not in settings.customers:
            return {"error": f"no customer {customer!r}"}
        if vmta and vmta not in settings.vmtas:
            return {"error": f"no vmta {vmta!r}"}
        site, destination, problem = await self._resolve(domain)
        policies = engine.paths.policies
        caps = {
            "max_connections of the vmta": settings.vmtas[vmta].max_connections if vmta else 0,
            "max_connections_per_shard": settings.engine.max_connections_per_shard,
            "max_connections in total": settings.engine.max_connections,
        }
        answer: Row = msgspec.to_builtins(explain(policies, destination, customer, vmta, caps=caps))
        answer["domain"] = domain
        answer["site"] = site.plain_name if site is not None else ""
        answer["problem"] = problem  # why the domain has no site
        answer["paths"] = [
            self._describe_path(path)
            for path in engine.paths.paths.values()
            if path.destination == destination.name and vmta in ("", path.vmta)
        ]
        answer["rules"], answer["reactions"] = engine.rules.describe_for(destination, vmta)
        policy = policies.effective(destination, customer, vmta)
        answer["security"] = await self._security(domain, site, policy.port) if site is not None else []
        answer["peers"] = await self._faults(site, policy.port) if site is not None else []
        answer["asked_at"] = time.time()
        return answer

    async def _resolve(self, domain: str) -> tuple[Site | None, Destination, str]:
        """Return where a domain's mail goes, what limits apply to, and why it has no site ("": it has)."""
        problem, site = "", None
        try:
            site = await self._engine.resolver.resolve(domain)
        except ResolveError as error:
            problem = str(error)
        name, hosts = (site.plain_name, () if site.is_route else site.host_names) if site else ("", ())
        return site, self._engine.paths.policies.destination(domain, name, hosts), problem

    async def _rules(self, criteria: Mapping[str, str]) -> Row:
        rules = self._engine.rules
        vmta = criteria.get("vmta", "")
        if "domain" not in criteria:
            found = [row for row in rules.describe_all() if not vmta or row["vmta"] in ("", vmta)]
            return {"rules": [], "reactions": found}
        try:
            domain = parse_domain(criteria["domain"])
        except ValueError as error:
            return {"error": str(error)}
        _, destination, _ = await self._resolve(domain)
        applying, in_force = rules.describe_for(destination, vmta)
        return {"rules": applying, "reactions": in_force}

    async def _security(self, domain: str, site: Site, port: int) -> list[str]:
        """Return what the domain asks of the TLS under its mail, in words."""
        resolver = self._engine.resolver
        lines = describe(site.demand) + await describe_hosts(resolver, site, port)
        problem = resolver.sts_of(domain).problem
        if problem is not None:
            lines.append(f"MTA-STS: announced, but {problem.result}: {problem.detail}")
        return lines

    async def _faults(self, site: Site, port: int) -> list[Row]:
        """Return what is known of the site's peers, by host name or by address and port."""
        engine = self._engine
        now = engine.loop.time()
        known = engine.opener.memory.faults(now)
        peers = {*site.host_names, *(host_key(host.name, host.port or port) for host in site.hosts)}
        for host in site.hosts if known else ():
            with contextlib.suppress(ResolveError):
                for address in await engine.resolver.addresses(host, "prefer_v4"):
                    peers.add(peer_key(host.name, address, host.port or port))
        return [
            {
                "peer": each.peer,
                "fault": each.fault,
                "terms": each.terms,
                "until_at": each.until - now + time.time(),
                "detail": each.detail,
            }
            for each in known
            if each.peer in peers
        ]


def _matches(criteria: Mapping[str, str], **facts: str) -> bool:
    return all(criteria.get(name, fact) == fact for name, fact in facts.items())
