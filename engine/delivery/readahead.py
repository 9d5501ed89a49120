"""From the store's due queues into ready queues, within a bounded window.

Everything accepted is in the store. What has just been committed goes straight on where there is room;
the rest is read in turn, a few deliveries from each due queue, so that a blast fills neither the
window nor the time of others. A queue that waits on disk for room stands in `behind` of its ready
queue by name; new arrivals of such a queue wait on disk too, behind what is older.

Owns: which deliveries are in memory, which queues wait on disk.
Never: decides where mail goes (sites), connects, settles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from math import inf
from typing import Protocol

from engine.core.envelope import Delivery
from engine.core.reply import Reply
from engine.delivery.dispatcher import Dispatcher
from engine.delivery.resolving import Lookup, Resolving, is_full
from engine.delivery.scan import Heads, Scan
from engine.delivery.site_queue import KEEP_WHEN_STOPPED, SiteQueue
from engine.delivery.sites import SiteQueues
from engine.delivery.trickle import Trickle
from engine.net.site import Site, with_word
from engine.queue.scheduled import Window
from engine.security.demand import word_of
from engine.store.records import parse_queue, position, queue_name

TURN = 4  # deliveries read from a queue before the next queue has its turn
SLICE = 64  # deliveries read before the loop gets its turn
WAKE_SLICE_S = 0.003  # a scan step gives so long to ready queues that nothing else makes read on
FEED = 16  # deliveries that a ready queue gets at a time while others wait for room as well
UNTRIED_SHARE = 4  # above one part in so many of the window, ready queues that no session served get one each
FEED_AT_ONCE = 16  # customers that are looked at when room may have come
MAX_BEHIND = 400_000  # queues known by name to wait on disk: about 120 bytes each


class ReadStore(Heads, Protocol):
    """What reading ahead needs of the store."""

    def due_keys(self, queue: bytes, after: bytes, now_ms: int, limit: int) -> list[tuple[int, bytes]]: ...
    def load(self, delivery_key: bytes, queue: bytes = b"", due: int = 0) -> Delivery | None: ...


class ReadAhead:
    """Brings due deliveries of this shard into its ready queues."""

    def __init__(  # noqa: PLR0913 (its collaborators, given once by the shard)
        self,
        store: ReadStore,
        resolver: Lookup,
        sites: SiteQueues,
        dispatcher: Dispatcher,
        window: Window,
        unix_clock: Callable[[], float],
        *,
        pool_of: Callable[[str], str],
        on_unresolved: Callable[[Delivery, Reply, bool], None],
        on_foreign: Callable[[Delivery], bool],
    ) -> None:
        """Args:
        pool_of: the pool of a customer; "" where the configuration no longer has it.
        on_unresolved: (delivery, reply, is_permanent): its domain can't be resolved; defer or bounce it.
        on_foreign: its pool has no vmta here; True where it was taken to be handed over.
        """
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._resolver = resolver
        self._sites = sites
        self._dispatcher = dispatcher
        self._window = window
        self._unix = unix_clock
        self._pool_of = pool_of
        self._on_unresolved = on_unresolved
        self._on_foreign = on_foreign
        self.in_memory: dict[bytes, Delivery] = {}
        self._behind_of: dict[bytes, SiteQueue] = {}
        self._resolving = Resolving(self._loop, resolver, self._resolved)
        self._scan = Scan(store, unix_clock, self)
        self._foreign_until: dict[bytes, float] = {}
        self._trickle = Trickle(self._loop, self.refill)
        self._asleep: list[SiteQueue] = []  # found by the last scan, to be looked after
        # Ready queues that found no room in the window, by the customer whose part of it was full.
        self._hungry: dict[str, dict[SiteQueue, None]] = {}
        self._under_way: set[bytes] = set()  # queues that had a delivery in memory when this pass began
        self.is_paused = False
        self.refuse: Callable[[Delivery, SiteQueue], bool] | None = None  # bounces what must not become ready

    # -- what has just been accepted --------------------------------------------------------------

    def arrived(self, delivery: Delivery) -> None:
        """A delivery was committed: bring it on at once if there is room and nothing older waits. HOT."""
        key = delivery.key
        if key in self.in_memory or self.is_paused:
            return
        envelope = delivery.envelope
        if envelope.terms is not None and delivery.due_at > self._unix():
            return  # held until an instant of its own (RFC 4865): the scan finds it then
        if self._behind_of and queue_name(envelope.customer, delivery.domain) in self._behind_of:
            return
        self._bring(delivery, key)

    def _bring(self, delivery: Delivery, key: bytes) -> bool | None:
        """Take a delivery into memory and on to its ready queue.

        False where there is no room; None where its way is not known, or not ours, for now.
        """
        if delivery.held:
            self._hand_over(delivery, key)
            return True  # with or without it, the queue goes on
        envelope = delivery.envelope
        site = self._resolver.lookup(delivery.domain)
        if site is None:
            return self._resolve_for(delivery, key)
        if envelope.terms is not None or envelope.is_tls_optional:
            site = with_word(site, word_of(envelope))
        site_queue = self._sites.find(envelope.pool, envelope.customer, delivery.domain, site)
        if site_queue is None:
            return self._hand_over(delivery, key)
        if self.refuse is not None and self.refuse(delivery, site_queue):
            return True
        if not self._window.admit(envelope.customer, envelope.size_bytes):
            self._wait_behind(delivery, site_queue)
            return False
        if not site_queue.push(delivery):
            self._window.leave(envelope.customer, envelope.size_bytes)
            self._wait_behind(delivery, site_queue)
            return False
        self.in_memory[key] = delivery
        self._dispatcher.pushed(site_queue)
        return True

    def _hand_over(self, delivery: Delivery, key: bytes) -> bool | None:
        if self._on_foreign(delivery):
            self.in_memory[key] = delivery
            self._window.force(delivery.envelope.customer, delivery.envelope.size_bytes)
            return True
        return None

    def _wait_behind(self, delivery: Delivery, site_queue: SiteQueue) -> None:
        """Leave a delivery on disk; reading its queue begins anew, or it would be passed over."""
        customer = delivery.envelope.customer
        queue = queue_name(customer, delivery.domain)
        known = self._behind_of.get(queue)
        if known is not None:
            known.rewind(customer, queue)
        else:
            self._put_behind(customer, queue, site_queue)

    def _put_behind(self, customer: str, queue: bytes, site_queue: SiteQueue) -> None:
        if queue in self._behind_of:
            return
        if len(self._behind_of) >= MAX_BEHIND:
            return  # the scan will come upon it again
        self._behind_of[queue] = site_queue
        if site_queue.wait_behind(customer, queue):
            self.refill_soon(site_queue)

    # -- what leaves memory -----------------------------------------------------------------------

    def left(self, delivery: Delivery) -> None:
        """A delivery is settled, handed over, or scheduled again: its room is free. HOT."""
        if self.in_memory.pop(delivery.key, None) is not None:
            self._window.leave(delivery.envelope.customer, delivery.envelope.size_bytes)

    def ready_again(self, delivery: Delivery, site_queue: SiteQueue) -> None:
        """A delivery that no peer has looked at goes back to the head of its ready queue."""
        if self.is_paused or site_queue.is_gone or delivery.key not in self.in_memory:
            self.left(delivery)  # the scan finds it again, and its ready queue of today
            return
        site_queue.queue.push_front(delivery)
        self._dispatcher.pushed(site_queue)

    def stopped(self, site_queue: SiteQueue) -> None:
        """No session opens for a ready queue: leave one to try with, the rest makes room for others."""
        site_queue.is_stopped = True
        for _ in range(len(site_queue.queue) - KEEP_WHEN_STOPPED):
            delivery = site_queue.queue.pop_last()
            if delivery is None:
                break
            self.left(delivery)
            self._wait_behind(delivery, site_queue)
        if not site_queue.queue and site_queue.behind:
            self._trickle.add(site_queue)

    def forget_failure(self, domain: str) -> None:
        """Have a domain asked for again whose look-up failed lately (an operator says so)."""
        self._resolving.forget_failure(domain)

    def put_all_back(self) -> None:
        """Forget every ready delivery and queue (reload, release of vmtas): the scan brings them again."""
        for site_queue in self._sites:
            while (delivery := site_queue.queue.pop()) is not None:
                self.left(delivery)
            site_queue.behind.clear()
        self._behind_of.clear()
        self._resolving.forget_failures()
        self._trickle.clear()
        self._asleep.clear()
        self._hungry.clear()
        self._scan.restart()

    # -- what waits on disk -----------------------------------------------------------------------

    def refill_soon(self, site_queue: SiteQueue) -> None:
        """Read for this ready queue in this turn of the loop."""
        if not site_queue.is_refill_due:
            site_queue.is_refill_due = True
            self._loop.call_soon(self.refill, site_queue)

    def refill(self, site_queue: SiteQueue) -> None:
        """Read a slice for a ready queue; before it for those that wait longer for room in the window."""
        site_queue.is_refill_due = False
        if self.is_paused:
            return
        if self._hungry:
            self._feed()
        behind = site_queue.behind
        left = SLICE
        stuck = 0
        while left > 0 and stuck < len(behind):
            customer = next(iter(behind))
            read = self._read_for(site_queue, customer)
            left -= max(read, 1)
            stuck = 0 if read else stuck + 1
        if behind and left <= 0:
            self.refill_soon(site_queue)

    def _read_for(self, site_queue: SiteQueue, customer: str) -> int:
        """Read a turn for one customer, whose queues then come last; return how far it went."""
        behind = site_queue.behind
        queues = behind.pop(customer)
        read = 0
        room = self._room_in(site_queue, customer)
        if room > 0:
            if customer not in self._hungry and self._has_room(customer):
                read = self._read_turn(queues, min(TURN, room))
            else:
                self._hungry.setdefault(customer, {}).setdefault(site_queue)
        if queues:
            behind[customer] = queues
        return read

    def _feed(self) -> None:
        """Give what room the window has to customers in turn, and to the ready queues of each in turn."""
        hungry = self._hungry
        for customer in list(islice(hungry, FEED_AT_ONCE)):
            waiting = hungry.pop(customer)
            if self._has_room(customer):
                site_queue = next(iter(waiting))
                del waiting[site_queue]
                if self._feed_one(site_queue, customer):
                    waiting[site_queue] = None
            if waiting:
                hungry[customer] = waiting

    def _feed_one(self, site_queue: SiteQueue, customer: str) -> bool:
        """Read a few for a ready queue; return whether it would have more."""
        left = FEED
        while left > 0 and customer in site_queue.behind and self._room_in(site_queue, customer) > 0:
            if not self._has_room(customer):
                return True
            read = self._read_for(site_queue, customer)
            if not read:
                return False
            left -= read
        return left <= 0 and customer in site_queue.behind

    def _has_room(self, customer: str) -> bool:
        """Return whether the window has room for that customer that is worth a look at the store."""
        window = self._window
        least = min(FEED, window.max_count // 64)
        return window.has_room and window.held_by(customer) + least <= window.max_count - window.count

    def _room_in(self, site_queue: SiteQueue, customer: str) -> int:
        """Return how many deliveries of a customer may come from disk into a ready queue.

        Thousands of sites that do not accept would else fill the window, each with what is put back once
        it is known.
        """
        room = site_queue.room(customer)
        if site_queue.is_untried and self._window.count * UNTRIED_SHARE > self._window.max_count:
            return min(room, KEEP_WHEN_STOPPED - site_queue.queue.waiting(customer))
        return room

    def _read_turn(self, queues: dict[bytes, bytes], turn: int) -> int:
        """Read the turn of a customer's next queue; return how far that went, 0 where there is no room."""
        queue = next(iter(queues))
        after = queues.pop(queue)
        now = self._unix()
        keys = self._store.due_keys(queue, after, int(now * 1000), SLICE)
        read = brought = 0
        for due, key in keys:
            if brought == turn:
                queues[queue] = after
                return read
            if key not in self.in_memory:
                delivery = self._store.load(key, queue, due)
                if delivery is not None and delivery.due_at <= now:
                    is_brought = self._bring(delivery, key)
                    if is_brought is None:
                        break  # the scan knows what to do with it
                    if not is_brought:
                        queues[queue] = after
                        return read
                brought += 1
            read += 1
            after = position(due, key)
        else:
            if len(keys) == SLICE:
                queues[queue] = after
                return read
        del self._behind_of[queue]
        return max(read, 1)

    # -- what the scan finds ----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to scan for due queues."""
        self._scan.start()

    def close(self) -> None:
        """Stop scanning and resolving."""
        self._scan.close()
        self._trickle.clear()
        self._resolving.close()

    def begin_pass(self) -> None:
        """Note which queues have a delivery in memory."""
        self._under_way = {
            queue_name(delivery.envelope.customer, delivery.domain) for delivery in self.in_memory.values()
        }

    def begin_slice(self) -> None:
        """Read for some of the ready queues that the last pass found asleep."""
        self._wake_asleep()

    def look(self, heads: list[tuple[int, bytes]], now_ms: int) -> None:
        """Put due queues behind their ready queues. HOT in a pass."""
        behind_of = self._behind_of
        for _, queue in heads:
            if queue not in behind_of:
                self._consider(queue, now_ms)

    def look_fresh(self, heads: list[tuple[int, bytes]], now_ms: int) -> None:
        """The same for what has become due since the pass began; it may be in memory by now."""
        self._under_way.update(queue for _, queue in heads if queue not in self._behind_of)
        self.look(heads, now_ms)

    def end_pass(self) -> None:
        """Remember which ready queues have something on disk."""
        self._asleep = self._asleep or [site_queue for site_queue in self._sites if site_queue.behind]

    def _wake_asleep(self) -> None:
        """Read for ready queues that had no room, and that no delivery taken from them makes read on."""
        until = self._loop.time() + WAKE_SLICE_S
        while self._asleep and self._window.has_room and self._loop.time() < until:
            site_queue = self._asleep.pop()
            if not site_queue.is_gone and site_queue not in self._trickle:
                self.refill(site_queue)

    def _consider(self, queue: bytes, now_ms: int) -> None:
        """Put a due queue behind its ready queue, unless its first delivery is under way already.

        A thorough scan does so even then: what is behind it may have been left out, or put back.
        """
        if (
            queue in self._under_way
        ):  # else all of it is on disk, and the look at it can wait until it is read
            first = self._store.due_keys(queue, b"", now_ms, 1)
            if not first or (first[0][1] in self.in_memory and not self._scan.is_thorough):
                return
        customer, domain = parse_queue(queue)
        if self._foreign_until and self._foreign_until.get(queue, 0.0) > self._loop.time():
            return
        site = self._resolver.lookup(domain)
        if site is not None and self._put_behind_its_own(queue, customer, domain, site):
            return
        resolving = self._resolving
        if resolving.has_failed(domain) or (site is None and not resolving.may_join(domain, customer)):
            return
        self._bring_some(queue, now_ms)

    def _put_behind_its_own(self, queue: bytes, customer: str, domain: str, site: Site) -> bool:
        """Put the queue behind the ready queue of its customer's pool; False where that is carried elsewhere.

        Deliveries that name another pool find their own ready queue when they are read.
        """
        found = self._sites.find(self._pool_of(customer), customer, domain, site, is_kept=False)
        if found is None:
            return False
        self._put_behind(customer, queue, found)
        return True

    def _bring_some(self, queue: bytes, now_ms: int) -> None:
        """Bring a few deliveries whose way is not known yet: to be resolved, or handed over."""
        for due, key in self._store.due_keys(queue, b"", now_ms, SLICE):
            if key in self.in_memory:
                continue
            delivery = self._store.load(key, queue, due)
            if delivery is not None and not self._bring(delivery, key):
                self._foreign_until[queue] = self._loop.time() + 1.0
                if len(self._foreign_until) > MAX_BEHIND // 10:
                    self._foreign_until.clear()
                return

    # -- resolving --------------------------------------------------------------------------------

    def _resolve_for(self, delivery: Delivery, key: bytes) -> bool:
        """Keep a delivery while its domain is looked up; False where too much waits for that already."""
        envelope = delivery.envelope
        if not self._resolving.may_join(delivery.domain, envelope.customer):
            return False
        if not self._window.admit(envelope.customer, envelope.size_bytes):
            return False
        self.in_memory[key] = delivery
        self._resolving.join(delivery)
        return True

    def _resolved(self, waiting: list[Delivery], reply: Reply | None, is_permanent: bool) -> None:
        """A look-up ended, with a reply where it failed."""
        for delivery in waiting:
            self.left(delivery)
            if reply is not None:
                self._on_unresolved(delivery, reply, is_permanent)
            else:
                self._bring(delivery, delivery.key)
        if reply is not None and not is_permanent:
            now = self._unix()
            soonest = min((each.due_at for each in waiting if each.due_at > now), default=inf)
            self._resolving.ask_again_within(waiting[0].domain, soonest - now)
        if reply is None and is_full(waiting):
            self._scan.be_thorough_soon()  # more of them may be on disk
