"""Room for large frames that are being received, shared by the connections of one listener.

A frame of common size is read as it comes. A large one first reserves its announced length; where there is
no room its connection is not read until there is, in the order of asking. Whoever has reserved can finish or
times out, so nobody waits for ever.

Owns: how much of the room is reserved, who waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Granted = Callable[[], None]


class Room:
    """So many octets, handed out in order."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.reserved_bytes = 0
        self._waiting: deque[tuple[int, Granted]] = deque()

    def reserve(self, amount_bytes: int, granted: Granted) -> bool:
        """Reserve now, or have `granted` called once it is reserved. What is too large gets all the room."""
        amount_bytes = min(amount_bytes, self.size_bytes)
        if not self._waiting and self.reserved_bytes + amount_bytes <= self.size_bytes:
            self.reserved_bytes += amount_bytes
            return True
        self._waiting.append((amount_bytes, granted))
        return False

    def release(self, amount_bytes: int) -> None:
        """Give back what was reserved, and let those in that fit now."""
        self.reserved_bytes -= min(amount_bytes, self.size_bytes)
        assert self.reserved_bytes >= 0
        while self._waiting and self.reserved_bytes + self._waiting[0][0] <= self.size_bytes:
            amount, granted = self._waiting.popleft()
            self.reserved_bytes += amount
            granted()

    def forget(self, granted: Granted) -> None:
        """Wait no longer."""
        self._waiting = deque([each for each in self._waiting if each[1] != granted])
        self.release(0)


class Reservation:
    """What one connection has, or waits for, of a room, until it is released."""

    __slots__ = ("_granted", "_room", "amount_bytes", "is_waiting")

    def __init__(self, room: Room, amount_bytes: int, granted: Granted) -> None:
        """Reserve; `granted` is called later if it `is_waiting` now."""
        self.amount_bytes = amount_bytes
        self._room = room
        self._granted = granted
        self.is_waiting = not room.reserve(amount_bytes, self._grant)

    def release(self) -> None:
        """Give it back, or wait no longer."""
        if self.is_waiting:
            self.is_waiting = False
            self._room.forget(self._grant)
        else:
            self._room.release(self.amount_bytes)

    def _grant(self) -> None:
        self.is_waiting = False
        self._granted()
