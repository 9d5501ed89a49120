"""System calls of the engine as strace saw them, in the order in which it saw them.

Positions are line numbers of the trace: a call begins at one and ends, finished, at another, which comes
later where strace had to print another process's call in between. strace stops a thread at both.

Owns: strace's notation. Knows nothing of stores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CALLS = (
    "openat,lseek,pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,sendmmsg,fsync,fdatasync,msync,sync_file_range,"
    "unlink,unlinkat,rename,renameat,renameat2,ftruncate,mmap,io_uring_setup,io_uring_enter"
)
_OCTETS = r'"((?:\\x[0-9a-f]{2})*)"'
_LINE = re.compile(r"(\d+) +[\d.]+ (\w+)\((.*)")
_RESUMED = re.compile(r"(\d+) +[\d.]+ <\.\.\. (\w+) resumed>(.*)")
_RESULT = re.compile(r"(.*)\) += (-?\d+|0x[0-9a-f]+)(?:<([^>]*)>)?[^=]*$")
_DESCRIPTOR = re.compile(r"(\d+)<((?:\\x[0-9a-f]{2})+|[A-Z0-9-]+:.*?\]|[^>]*)>")
_UNFINISHED = " <unfinished ...>"


def strace_command(strace: str, output: Path) -> list[str]:
    """Return the command in front of the engine's own."""
    options = ["-f", "-v", "--seccomp-bpf", "-ttt", "-yy", "-xx", "-s", "100000000", "-e", f"trace={CALLS}"]
    return [strace, *options, "-e", "signal=none", "-o", str(output)]


class Call(NamedTuple):
    """One finished call. `path`: of its descriptor, or the socket as strace names it."""

    begin: int
    end: int
    name: str
    descriptor: int
    path: str
    arguments: str
    result: int
    opened: str

    @property
    def data(self) -> bytes:
        """Octets given, of all buffers, cut to what was written."""
        octets = b"".join(_decode(text) for text in re.findall(_OCTETS, self.arguments))
        return octets[: self.result] if self.name.startswith(("write", "pwrite", "send")) else octets

    @property
    def last_number(self) -> int:
        """The last argument: the offset of pwrite64 and pwritev, the length of ftruncate."""
        return int(self.arguments.rpartition(",")[2])


def parse_trace(path: Path) -> list[Call]:
    """Return all calls that ended well, in the order in which they began."""
    with path.open() as lines:
        return sorted(_parse(lines), key=lambda call: call.begin)


def _parse(lines: Iterator[str]) -> Iterator[Call]:
    begun: dict[str, tuple[int, str, str]] = {}
    for number, line in enumerate(lines):
        text = line.rstrip("\n")
        if found := _RESUMED.match(text):
            if found[1] in begun:
                begin, name, arguments = begun.pop(found[1])
                yield from _finish(begin, number, name, arguments + found[3])
        elif found := _LINE.match(text):
            if text.endswith(_UNFINISHED):
                begun[found[1]] = number, found[2], found[3].removesuffix(_UNFINISHED)
            else:
                yield from _finish(number, number, found[2], found[3])


def _finish(begin: int, end: int, name: str, rest: str) -> Iterator[Call]:
    found = _RESULT.match(rest)
    if found is None or found[2].startswith(("-", "0x")):
        return
    descriptor = _DESCRIPTOR.match(found[1])
    yield Call(
        begin,
        end,
        name,
        int(descriptor[1]) if descriptor else -1,
        _path(descriptor[2]) if descriptor else "",
        found[1],
        int(found[2]),
        _path(found[3] or ""),
    )


def _path(text: str) -> str:
    return _decode(text.partition("<")[0]).decode() if text.startswith("\\x") else text


def _decode(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
