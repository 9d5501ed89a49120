"""Many keys of one length in order, in as many octets as they have: a million deliveries are 14 MB."""

from __future__ import annotations


class KeyList:
    """Keys that were appended in ascending order."""

    def __init__(self, key_bytes: int) -> None:
        self._key_bytes = key_bytes
        self._octets = bytearray()

    def __len__(self) -> int:
        return len(self._octets) // self._key_bytes

    def append(self, key: bytes) -> None:
        """Add a key that is not below the last one."""
        assert len(key) == self._key_bytes, f"a key of {len(key)} octets"
        self._octets += key

    def at(self, place: int) -> bytes:
        """Return the key at a place."""
        return bytes(self._octets[place * self._key_bytes : (place + 1) * self._key_bytes])

    def index(self, key: bytes) -> int:
        """Return the place of a key, -1 if it is not here."""
        octets, size = self._octets, self._key_bytes
        low, high = 0, len(octets) // size
        while low < high:
            middle = (low + high) // 2
            if octets[middle * size : middle * size + size] < key:
                low = middle + 1
            else:
                high = middle
        return low if octets[low * size : low * size + size] == key else -1
