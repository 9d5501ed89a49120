"""Small values of domains that outlive the process and are everybody's: MTA-STS policies.

One LMDB environment beside the shards' stores, which all of them read and write. A value that is lost costs a
fetch, and a gap in protection until then; so it is synced, but nobody waits for that.

Owns: the environment `data_dir/mta-sts`, its bound, the forgetting of what has ended.
Never: reads what the values mean.
Fails: a value that can't be kept or read is logged, and is none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb

from engine.telemetry.log import Log

MAX_VALUES = 100_000  # of 1 kB each, as most policies are: 100 MB
MAP_BYTES = 4 << 30  # address space and a sparse file, not memory: even policies of 40 kB fit
_HEAD = struct.Struct(">d")  # Unix seconds at which it ends

log = Log("shelf")


class Shelf:
    """Keeps octets by domain."""

    def __init__(
        self, directory: Path, unix_clock: Callable[[], float], max_values: int = MAX_VALUES
    ) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._environment = lmdb.open(str(directory), map_size=MAP_BYTES, max_readers=1024, mode=0o600)
        self._unix = unix_clock
        self._max_values = max_values
        # Saving syncs, and waits for the writers of other shards: not on the loop.
        self._thread = ThreadPoolExecutor(1, "shelf")

    def load(self, domain: str) -> bytes | None:
        """Return what is kept of a domain and has not ended."""
        try:
            with self._environment.begin() as transaction:
                raw = transaction.get(domain.encode())
        except lmdb.Error as error:
            log.error("not read", domain=domain, reason=str(error))
            return None
        if raw is None or len(raw) < _HEAD.size or _HEAD.unpack_from(raw)[0] <= self._unix():
            return None
        return bytes(raw[_HEAD.size :])

    def save(self, domain: str, octets: bytes, ends_at: float) -> None:
        """Keep octets of a domain until then; it happens soon."""
        self._thread.submit(self._save, domain, _HEAD.pack(ends_at) + octets)

    def close(self) -> None:
        """Keep what was asked for, and close."""
        self._thread.shutdown()
        self._environment.close()

    def _save(self, domain: str, raw: bytes) -> None:
        try:
            with self._environment.begin(write=True) as transaction:
                if transaction.stat()["entries"] >= self._max_values:
                    self._forget_ended(transaction)
                if transaction.stat()["entries"] >= self._max_values:
                    log.error("not kept, there are too many", domain=domain, values=self._max_values)
                    return
                transaction.put(domain.encode(), raw)
        except lmdb.Error as error:
            log.error("not kept", domain=domain, reason=str(error))

    def _forget_ended(self, transaction: lmdb.Transaction) -> None:
        now = self._unix()
        ended = [bytes(key) for key, raw in transaction.cursor() if _HEAD.unpack_from(raw)[0] <= now]
        for key in ended:
            transaction.delete(key)
