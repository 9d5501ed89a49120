"""A reply without what differs between replies that say the same: addresses, numbers, ids, names in quotes.

Rules are matched against this form, so that what is remembered for it is true of every reply that has it.

    <user@example.com>          <@>
    192.0.2.1, 2001:db8::1      ip
    1abcDE-000xyz-Ab            id        nine and more letters and digits, letters behind digits
    20251124183301              #         seven and more digits
    300 seconds                 # seconds counts of something
    "example"                   ""        one word, or a text with an address in it
    550-5.7.1 (second line)               codes that are said again

All in lower case, spaces single. Codes that providers give, such as TSS04, S3140 or OFR_416, stay.

Owns: that form; reading a reply from a line of text.
Never: takes longer than linear time, or looks beyond the first MAX_CHARS.
"""

from __future__ import annotations

import re

from engine.core.reply import Reply

MAX_CHARS = (
    1000  # of a text; what a reply is about stands in its first lines (RFC 5321 4.5.3.1.5: 512 octets)
)

_SPACE = re.compile(r"\s+")
_ADDRESS = re.compile(r"[^\s<>\"',;:()\[\]{}@=]{1,64}@[^\s<>\"',;:()\[\]{}@]{1,255}")
_V4 = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_V6 = re.compile(r"(?<![0-9a-z:])(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{0,4}(?![0-9a-z:])")
_ID = re.compile(r"(?<![a-z0-9+-])(?=[a-z+-]*\d[a-z0-9+-]*[a-z])[a-z0-9+-]{9,}")
_NUMBER = re.compile(r"\d{7,}")
_UNITS = (
    r"s|secs?|seconds?|mins?|minutes?|hours?|hrs?|days?"
    r"|bytes?|kb|mb|kib|mib|octets?|messages?|recipients?|connections?"
)
_COUNT = re.compile(rf"(?<![\w.])\d+(?= ?(?:{_UNITS})\b)")
_QUOTED = re.compile(r'"(?:[^\s"]*|[^"@]*@[^"]*)"')
_CURLY = str.maketrans("\u2018\u2019\u201c\u201d\u00a0", "''\"\" ")

_CODES = re.compile(r"\s*([2-5]\d\d)(?:[ -]+|$)(?:([245]\.\d{1,3}\.\d{1,3})(?![\d.])[ :;-]*)?", re.ASCII)
_INNER = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d]|\.\d)", re.ASCII)
_SAID = re.compile(r"\bsaid:? \"?(?=[245]\d\d[ -])|^\s*(?:smtp|x-[a-z0-9-]+) ?; ?", re.IGNORECASE)


def normalize(reply: Reply) -> str:
    """Return what the reply says, in normal form. HOT."""
    text = reply.text[:MAX_CHARS]
    code, enhanced = str(reply.code), reply.enhanced
    if enhanced and enhanced in text:  # said again on each line
        text = text.replace(f"{code}-{enhanced}", " ").replace(f"{code} {enhanced}", " ")
    if code in text:
        text = text.replace(f"\n{code}-", "\n").replace(f"\n{code} ", "\n")
    if not text.isascii():
        text = text.translate(_CURLY).encode("utf-8", "replace").decode()
    text = _SPACE.sub(" ", text.lower())
    if "@" in text:
        text = _ADDRESS.sub("@", text)
    if '"' in text:
        text = _QUOTED.sub('""', text)
    text = _V4.sub("ip", text)
    if text.count(":") > 2:
        text = _V6.sub("ip", text)
    return _COUNT.sub("#", _NUMBER.sub("#", _ID.sub("id", text))).strip()


def enhanced_of(reply: Reply) -> str:
    """Return the enhanced code: in its place, or else where the text has one of the code's class."""
    if reply.enhanced:
        return reply.enhanced
    for found in _INNER.finditer(reply.text, 0, MAX_CHARS):
        if not reply.code or found[1][0] == str(reply.code)[0]:
            return found[1]
    return ""


def parse_reply(line: str) -> Reply:
    """Read a reply from one line, as logs and bounce messages have it; code 0 where it has none.

    Lines of a reply may be joined by newlines or by a written "\\n". What stands before a reply that
    another server quotes ("host mx.example said: 550 ...", "smtp; 550 ...") is left out.
    """
    text = line[: 4 * MAX_CHARS].replace("\\r", "").replace("\\n", "\n").replace("\r", "").strip()
    codes = _CODES.match(text)
    if codes is None:
        quoted = _SAID.search(text)
        codes = _CODES.match(text, quoted.end()) if quoted else None
    if codes is None:
        return Reply(0, "", text)
    code, enhanced = int(codes[1]), codes[2] or ""
    if enhanced and enhanced[0] != codes[1][0]:
        enhanced = ""  # RFC 2034 section 4: the class is the code's; the code decides
    return Reply(code, enhanced, text[codes.end() :])
