"""A TOML text and the line on which each of its keys and list items stands.

tomllib reads values but forgets where they were written, so a second, forgiving scan of text
that is already known to be valid collects the lines. A path is a tuple of keys and list indexes:
("listener", 0, "allow", 1).

Fails: ConfigError with file and line when the text is not TOML, or nests deeper than anything has a use for.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from typing import Any

from engine.core.errors import ConfigError, Origin

KeyPath = tuple[str | int, ...]

# Keys and indexes of a path. What is read goes down to seven; recursion, tomllib's too, ends at hundreds.
MAX_DEPTH = 32

_ERROR_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}\n#]*")
# An escaped quote does not end a basic string; a multi-line one may end in up to five quotes.
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)


class Document:
    """One TOML file: its values, and where each was written."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        try:
            self.table: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = _ERROR_LINE.search(str(error))
            line = int(found[1]) if found else text.count("\n") + 1
            detail = _ERROR_LINE.sub("", str(error)).strip()
            raise ConfigError(Origin(file, line), f"not valid TOML: {detail}") from error
        except RecursionError:
            self._scan(text)  # stops where tomllib was on its way down
            raise
        self._lines = self._scan(text)

    def _scan(self, text: str) -> dict[KeyPath, int]:
        try:
            return _Scan(text).lines
        except _TooDeep as error:
            detail = f"expected at most {MAX_DEPTH} levels of tables and lists"
            raise ConfigError(Origin(self.file, error.line), detail) from None

    def origin(self, path: KeyPath) -> Origin:
        """Return where the path, or the nearest table around it, was written."""
        for length in range(len(path), 0, -1):
            line = self._lines.get(path[:length])
            if line is not None:
                return Origin(self.file, line)
        return Origin(self.file, 0)


class _TooDeep(Exception):
    """A path is longer than MAX_DEPTH."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Scan:
    """Walks once over valid TOML and notes the line of every key and list item."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text.replace("\r\n", "\n")
        self._newlines = [i for i, char in enumerate(self._text) if char == "\n"]
        self._arrays: dict[KeyPath, int] = {}  # arrays of tables: index of the last one
        self._at = 0
        self._scan()

    def _scan(self) -> None:
        prefix: KeyPath = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._peek() == "[":
                prefix = self._scan_header()
            else:
                self._scan_pair(prefix)
            self._skip(_BLANK)

    def _scan_header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._at)
        start = self._at
        self._at += 2 if is_array else 1
        keys = self._scan_keys()
        self._at = self._text.find("]", self._at) + (2 if is_array else 1)
        path: KeyPath = ()
        for depth, key in enumerate(keys, 1):
            path = (*path, key)
            self._note(path, start)
            if is_array and depth == len(keys):
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path])
        self._note(path, start)
        return path

    def _scan_pair(self, prefix: KeyPath) -> None:
        start = self._at
        for key in self._scan_keys():
            prefix = (*prefix, key)
            self._note(prefix, start)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._scan_value(prefix)

    def _scan_keys(self) -> list[str]:
        """Read a dotted key up to its "=" or "]"."""
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            quoted = _STRING.match(self._text, self._at)
            if quoted:
                keys.append(next(iter(tomllib.loads(f"{quoted[0]} = 0"))))
                self._at = quoted.end()
            else:
                keys.append(self._skip(_BARE_KEY))
            self._skip(_SPACE)
            if self._peek() != ".":
                return keys
            self._at += 1

    def _scan_value(self, path: KeyPath) -> None:
        char = self._peek()
        if char == "[":
            self._scan_array(path)
        elif char == "{":
            self._scan_inline(path)
        elif not self._skip(_STRING):
            self._skip(_BARE_VALUE)

    def _scan_array(self, path: KeyPath) -> None:
        index = 0
        self._at += 1
        self._skip(_BLANK)
        while self._peek() not in ("]", ""):
            self._note((*path, index), self._at)
            self._scan_value((*path, index))
            index += 1
            self._skip_separator()
        self._at += 1

    def _scan_inline(self, path: KeyPath) -> None:
        self._at += 1
        self._skip(_BLANK)
        while self._peek() not in ("}", ""):
            self._scan_pair(path)
            self._skip_separator()
        self._at += 1

    def _skip_separator(self) -> None:
        self._skip(_BLANK)
        if self._peek() == ",":
            self._at += 1
            self._skip(_BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _note(self, path: KeyPath, position: int) -> None:
        line = bisect_left(self._newlines, position) + 1
        if len(path) > MAX_DEPTH:
            raise _TooDeep(line)
        self.lines.setdefault(path, line)
