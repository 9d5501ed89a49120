"""Spool files in flight: from their claim to their unlinking, or to failed/.

A claimed file is read and given to the acceptor with its claim, which the store keeps in the message's own
transaction. It is unlinked after the commit. So whenever the process dies, the file is in new/ or claimed/
with its message not stored (it is taken again), or in claimed/ with its claim known (it is unlinked): sent
once.

Refused for good (5xx, not a message): failed/, with the reason. Refused for now (4xx): it stays claimed,
nothing more is taken for a while, then it is offered again.

Owns: what this shard holds in claimed/, and what becomes of it.
Never: looks into new/ (inject.spool does), renames (inject.spool_directory).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from hashlib import blake2b
from typing import Any

from engine.core.errors import StoreError
from engine.core.reply import Reply
from engine.inject.context import FeedContext, Intake
from engine.inject.settled import ClaimStore, SettledClaims
from engine.inject.spool_directory import OpenFile, SpoolDirectory, Unreadable, read_file
from engine.inject.suspect import SuspectRecord
from engine.message.pickup import Pickup, PickupError, parse_pickup
from engine.settings.model import ListenerSettings
from engine.telemetry.log import Log
from engine.telemetry.metrics import Cell, Counters

MAX_IN_FLIGHT = 1000  # 2,000 files a second through commits 200 ms apart ("async"), and as much again
MAX_IN_FLIGHT_BYTES = 64 << 20
THREAD_BYTES = 1 << 20  # larger files are read in a thread: a cold one would hold the loop for long
ENVELOPE_BYTES = 64 << 10  # of fields in front of the message, beside those of recipients
RECIPIENT_BYTES = 270  # X-Receiver: and 254 octets (RFC 5321 4.5.3.1.3)
MAX_STALE = 100_000  # looked at in one start: 0.5 s; a crash leaves at most some thousands
MAX_UNMOVED = 1000  # files that can't be moved to failed/ and are tried again
FIRST_BACK_OFF_S = 1.0
MAX_BACK_OFF_S = 10.0

log = Log("spool")


class ClaimedFile:
    """A file in flight."""

    __slots__ = ("began", "claim", "name", "size_bytes")

    def __init__(self, name: str, claim: str, size_bytes: int, began: float) -> None:
        self.name = name
        self.claim = claim
        self.size_bytes = size_bytes
        self.began = began


class Flight:
    """The claimed files of one spool in one shard.

    `held` has every name in claimed/<shard>; `waiting` those to be offered (again). `on_free()` is called
    when more may be taken, `on_reuse(name)` when a name that came again while it was held is free.
    """

    def __init__(  # noqa: PLR0913 (its collaborators, given once by the listener)
        self,
        settings: ListenerSettings,
        directory: SpoolDirectory,
        acceptor: Intake,
        store: ClaimStore,
        counters: Counters,
        clock: Callable[[], float],
        *,
        is_async: bool,
        on_free: Callable[[], None],
        on_reuse: Callable[[str], None],
    ) -> None:
        self.held: set[str] = set()
        self.waiting: deque[str] = deque()
        self.count = 0
        self.size_bytes = 0
        self.resume_at = 0.0
        self._directory = directory
        self._acceptor = acceptor
        self._store = store
        self._clock = clock
        self._is_async = is_async
        self._on_free = on_free
        self._on_reuse = on_reuse
        self._unmoved: dict[str, str] = {}  # files for failed/ that could not be moved, with why they failed
        self._again: set[str] = set()  # names that came to new/ while they were held
        self._prefix = blake2b(os.fsencode(directory.path), digest_size=4).hexdigest()
        self._settled = SettledClaims(store, directory.sync)
        self._back_off_s = FIRST_BACK_OFF_S
        self._is_closed = False
        self._suspect: SuspectRecord | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._emptied: asyncio.Future[None] | None = None
        self._seconds = counters.histogram("mailrail_accept_seconds", feed="spool")
        self._counters = counters
        self.use(settings)

    def use(self, settings: ListenerSettings) -> None:
        """Take new settings."""
        self._settings = settings
        self._refused: Cell = self._counters.counter(
            "mailrail_injections_total", feed="spool", listener=settings.name, result="refused"
        )
        envelope_bytes = ENVELOPE_BYTES + RECIPIENT_BYTES * settings.max_recipients
        self._max_file_bytes = settings.max_message_size_bytes + envelope_bytes

    @property
    def has_room(self) -> bool:
        return self.count < MAX_IN_FLIGHT and self.size_bytes < MAX_IN_FLIGHT_BYTES

    # -- life -------------------------------------------------------------------------------------

    def recover(self, shards: int, knows_left_claim: Callable[[int, str], bool]) -> int:
        """Take up what this shard had claimed, and what shards that exist no more had; return how many."""
        self.waiting.extend(self._directory.claimed_files())
        for number, names in self._directory.left_claims(shards):
            for name in names:
                try:
                    self._directory.inherit(number, name)
                except OSError as error:
                    log.error("left claim can't be taken", file=format_name(name), reason=str(error))
                    continue
                if not self._was_stored(name, partial(knows_left_claim, number)):
                    self.waiting.append(name)
        self.held.update(self.waiting)
        self._forget_stale()
        self._judge_suspect()
        return len(self.waiting)

    async def land(self, grace_s: float) -> None:
        """Wait for what is in flight; give back what waits."""
        for name in self.waiting:
            with contextlib.suppress(OSError):
                self._directory.put_back(name)
        self.waiting.clear()
        if self.count:
            self._emptied = asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied, grace_s)
        await self._settled.forget()

    def forget_settled(self) -> None:
        """Have the store forget the claims of files that are gone for good."""
        self._start(self._settled.forget())

    def close(self) -> None:
        """Do nothing any more; the next start takes up what is claimed."""
        self._is_closed = True
        self._settled.close()
        if self._suspect is not None:
            self._suspect.close()

    # -- taking -----------------------------------------------------------------------------------

    def note_reuse(self, name: str) -> None:
        """A file has come to new/ under a name that is held."""
        self._again.add(name)

    def take(self, name: str) -> None:
        """Read a claimed file and offer it. HOT."""
        self.held.add(name)
        try:
            file = self._directory.open_claimed(name, self._max_file_bytes)
        except Unreadable as error:
            self._fail(name, str(error))
            return
        except FileNotFoundError:
            self._let_go(name)
            return
        except OSError as error:  # no descriptors, no memory: not the file's fault
            self._defer(name, str(error))
            return
        claimed = ClaimedFile(name, self._claim(name, file), file.size_bytes, self._clock())
        try:
            is_known = self._store.claim_of(claimed.claim) is not None
        except StoreError as error:
            os.close(file.descriptor)
            self._defer(name, str(error))
            return
        if is_known:
            os.close(file.descriptor)
            self._finish_known(claimed)
            return
        self.count += 1
        self.size_bytes += file.size_bytes
        if file.size_bytes > THREAD_BYTES:
            self._start(self._read_in_thread(claimed, file))
        else:
            self._read(claimed, partial(read_file, file))

    def _claim(self, name: str, file: OpenFile) -> str:
        return f"{self._prefix}/{file.identity}/{name}"

    def _judge_suspect(self) -> None:
        """Take the file on which the last life died first; of which two did, not at all."""
        try:
            suspect = self._suspect = SuspectRecord(self._directory.suspect_path)
        except OSError as error:
            log.warning("no record of the file being taken", reason=str(error))
            return
        if suspect.name not in self.held:
            return
        self.waiting.remove(suspect.name)
        if suspect.is_guilty:
            log.error("shard died of a spool file", file=format_name(suspect.name), times=suspect.deaths)
            self._fail(suspect.name, f"the shard died {suspect.deaths} times while it read this file")
        else:
            self.waiting.appendleft(suspect.name)

    def _forget_stale(self) -> None:
        """Forget claims whose files are gone: the process died between the unlinking and that."""
        for claim in self._store.list_claims(f"{self._prefix}/", MAX_STALE):
            name = claim.split("/", 2)[2]
            if name not in self.held and not self._directory.is_new(name):
                self._store.forget_claim(claim)

    def _was_stored(self, name: str, knows: Callable[[str], bool]) -> bool:
        """Unlink a file if the store of a shard that exists no more knows its claim."""
        try:
            file = self._directory.open_claimed(name, self._max_file_bytes)
        except (Unreadable, OSError):
            return False
        os.close(file.descriptor)
        if not knows(self._claim(name, file)):
            return False
        self._directory.unlink(name)
        return True

    def _finish_known(self, claimed: ClaimedFile) -> None:
        """The message is stored: the process died, or power went, before the file was unlinked.

        But where we have unlinked the file of this claim ourselves, this is another one of the same name,
        size, time and inode; it waits in new/ until the claim is forgotten.
        """
        if claimed.claim in self._settled:
            self._put_back(claimed.name)
        else:
            self._finish(claimed)

    async def _read_in_thread(self, claimed: ClaimedFile, file: OpenFile) -> None:
        future = asyncio.get_running_loop().run_in_executor(None, read_file, file)
        await asyncio.wait([future])
        if not self._is_closed:
            self._read(claimed, future.result)

    def _read(self, claimed: ClaimedFile, get: Callable[[], bytes]) -> None:
        try:
            octets = get()
        except Unreadable as error:
            self._refuse(claimed, str(error))
        except BlockingIOError:
            self._leave(claimed)
            self._put_back(claimed.name)
        else:
            suspect = self._suspect
            if suspect is not None:
                suspect.begin(claimed.name)
            self._offer(claimed, octets)
            if suspect is not None:
                suspect.end()

    def _offer(self, claimed: ClaimedFile, octets: bytes) -> None:
        try:
            pickup = parse_pickup(octets)
        except PickupError as error:
            self._refuse(claimed, error.detail)
            return
        fault = self._fault(pickup)
        if fault:
            self._refuse(claimed, fault)
            return
        settings = self._settings
        context = FeedContext(
            "spool",
            settings.name,
            customer=settings.customer,
            is_trusted=settings.trusted,
            peer=format_name(claimed.name),
            claim=claimed.claim,
            max_hold_s=settings.max_hold_s,
        )
        self._acceptor.accept(
            pickup.sender,
            pickup.recipients,
            pickup.message,
            pickup.is_8bit,
            context,
            partial(self._answered, claimed),
        )

    def _fault(self, pickup: Pickup) -> str:
        settings = self._settings
        if len(pickup.recipients) > settings.max_recipients:
            return f"{len(pickup.recipients)} recipients, at most {settings.max_recipients} are taken"
        if len(pickup.message) > settings.max_message_size_bytes:
            return f"larger than {settings.max_message_size_bytes} octets"
        return ""

    # -- what becomes of a file -------------------------------------------------------------------

    def _answered(self, claimed: ClaimedFile, reply: Reply, _message_ids: list[str]) -> None:
        """The acceptor's word. HOT."""
        if self._is_closed:
            return
        if not reply.is_positive:
            self._leave(claimed)
            if reply.is_temporary:
                self._defer(claimed.name, str(reply))
            else:
                self._move_to_failed(claimed.name, str(reply))
            return
        self._back_off_s = FIRST_BACK_OFF_S
        if self._is_async:
            self._store.when_durable(partial(self._durable, claimed))
        else:
            self._durable(claimed, None)

    def _durable(self, claimed: ClaimedFile, error: StoreError | None) -> None:
        if self._is_closed:
            return
        self._leave(claimed)
        if error is not None:
            self._defer(claimed.name, str(error))
            return
        self._seconds.observe(self._clock() - claimed.began)
        self._finish(claimed)

    def _finish(self, claimed: ClaimedFile) -> None:
        """The message is stored: the file goes, later the claim."""
        try:
            self._directory.unlink(claimed.name)
        except OSError as error:  # it stays held, and its claim known: never sent again
            log.error("spool file can't be unlinked", file=format_name(claimed.name), reason=error.strerror)
            return
        self._settled.add(claimed.claim)
        self._let_go(claimed.name)

    def _refuse(self, claimed: ClaimedFile, reason: str) -> None:
        self._leave(claimed)
        self._fail(claimed.name, reason)

    def _fail(self, name: str, reason: str) -> None:
        """It is no message, or one that the listener does not take; the acceptor never saw it."""
        self._refused[0] += 1
        self._move_to_failed(name, reason)

    def _move_to_failed(self, name: str, reason: str) -> None:
        log.info("spool file failed", file=format_name(name), reason=reason)
        try:
            self._directory.fail(name, reason)
        except OSError as error:  # it stays held; beyond the bound, until the next start
            log.error("spool file can't be moved to failed", file=format_name(name), reason=error.strerror)
            if len(self._unmoved) < MAX_UNMOVED:
                self._unmoved[name] = reason
            return
        self._let_go(name)

    def fail_again(self) -> None:
        """Move what could not be moved to failed/: there may be room, or the directory, again."""
        for name, reason in list(self._unmoved.items()):
            try:
                self._directory.fail(name, reason)
            except OSError:
                if self._directory.is_claimed(name):
                    return
            del self._unmoved[name]
            self._let_go(name)

    def _defer(self, name: str, reason: str) -> None:
        """Not now: keep it claimed, and leave everything alone for a while."""
        self.waiting.append(name)
        now = self._clock()
        if now >= self.resume_at:
            log.warning("spool waits", seconds=self._back_off_s, reason=reason)
            self.resume_at = now + self._back_off_s
            self._back_off_s = min(2 * self._back_off_s, MAX_BACK_OFF_S)
        self._on_free()

    def _put_back(self, name: str) -> None:
        """Give a file back to new/, where a listing finds it when it has been quiet for a while."""
        try:
            self._directory.put_back(name)
        except OSError as error:
            self._defer(name, str(error))
        else:
            self._let_go(name)

    def _leave(self, claimed: ClaimedFile) -> None:
        self.count -= 1
        self.size_bytes -= claimed.size_bytes
        if self._emptied is not None and not self.count and not self._emptied.done():
            self._emptied.set_result(None)
        self._on_free()

    def _let_go(self, name: str) -> None:
        """Nothing of this name is claimed any more."""
        self.held.discard(name)
        if name in self._again:
            self._again.discard(name)
            self._on_reuse(name)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def format_name(name: str) -> str:
    """Return a file's name for people: UTF-8, one line."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text if text.isprintable() else ascii(text)[1:-1]
