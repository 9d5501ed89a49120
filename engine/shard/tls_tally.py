"""The outcomes of TLS of this shard on disk, a file a day; and those of all shards together.

A file is `shard-N/tls-DAY.tally` below data_dir. That of today is written every minute where it has changed:
a crash loses that much of a report. Those of days that are over change no more.

Owns: these files.
Never: counts, sends.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.security.tally import MAX_DOMAINS, Tally, day_of, import_tally
from engine.telemetry.log import Log

log = Log("tls_tally")


class TallyKeeper:
    """The tally of today."""

    def __init__(self, directory: Path, unix_clock: Callable[[], float]) -> None:
        """`directory`: of the shard."""
        self._directory = directory
        self._unix = unix_clock
        self._day = 0
        self._tally = Tally()
        self._kept = 0  # changes that are on disk
        self._has_told = False  # that there was no room for all domains of the day

    def open(self) -> None:
        """Go on with what an earlier process has counted today."""
        self._day = day_of(self._unix())
        self._tally = _read(_file(self._directory, self._day)) or Tally()
        self._kept = self._tally.changes

    def tally(self) -> Tally:
        """Return the tally of today; at midnight (UTC) another one. HOT."""
        day = day_of(self._unix())
        if day != self._day:
            self.keep()
            self._day, self._tally, self._kept = day, Tally(), 0
            self._has_told = False
        return self._tally

    def keep(self) -> None:
        """Write what has changed."""
        if self._tally.changes == self._kept:
            return
        file = _file(self._directory, self._day)
        temporary = file.with_suffix(".new")
        try:
            temporary.write_bytes(self._tally.export())
            temporary.replace(file)
        except OSError as error:
            log.error("not kept", file=str(file), error=str(error))
            return
        self._kept = self._tally.changes
        if self._tally.uncounted and not self._has_told:
            self._has_told = True
            log.warning("more domains than a day's tally holds, the rest go unreported", bound=MAX_DOMAINS)


def days_before(data_dir: Path, today: int) -> list[int]:
    """Return the days before today that shards have files of."""
    days = set()
    for file in data_dir.glob("shard-*/tls-*.tally"):
        number = file.stem.removeprefix("tls-")
        if number.isdigit() and int(number) < today:
            days.add(int(number))
    return sorted(days)


def collect(data_dir: Path, day: int) -> Tally:
    """Return what all shards have counted on a day."""
    total = Tally()
    for file in sorted(data_dir.glob(f"shard-*/tls-{day}.tally")):
        counted = _read(file)
        if counted is not None:
            total.merge(counted)
    return total


def forget(data_dir: Path, day: int) -> None:
    """Remove a day's files."""
    for file in data_dir.glob(f"shard-*/tls-{day}.tally"):
        file.unlink(missing_ok=True)


def _file(directory: Path, day: int) -> Path:
    return directory / f"tls-{day}.tally"


def _read(file: Path) -> Tally | None:
    try:
        return import_tally(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.error("kept tally unreadable", file=str(file), error=str(error))
        return None
