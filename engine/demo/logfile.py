"""A file of lines that another process is writing, read as far as it goes.

Owns: how far it was read; a line that is not finished waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

Row = TypeVar("Row")


class LogFile:
    """Reads what was added since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self, decode: Callable[[bytes], Row]) -> Iterator[Row]:
        """Yield the rows that were finished since the last call; none where the file is not there yet."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].splitlines():
            yield decode(line)
