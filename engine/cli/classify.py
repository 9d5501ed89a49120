"""`mailrail classify`: what replies mean, by the rules of the policies.

Owns: reading replies, one a line, as text or as JSON; the form of the answers.
Never: holds more than one line, or more than MAX_LINE_BYTES of it.
Fails: BadLine for a line that looks like JSON and does not hold a reply.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import click
import msgspec

from engine.core.framing import UNDECODABLE
from engine.loading import load_policies, load_shipped_policies
from engine.policy.fold import PolicySet
from engine.policy.normalize import enhanced_of, parse_reply
from engine.policy.parse import parse_policies

MAX_LINE_BYTES = 1 << 16  # what is behind is not looked at; a reply ends far before (RFC 5321 4.5.3.1.5)
SHOWN_CHARS = 100  # of a reply, for people


class BadLine(Exception):
    """A line that is no reply; `str()` says what was expected."""


class Line(NamedTuple):
    """One line of input."""

    number: int
    octets: bytes
    is_whole: bool


class _Row(msgspec.Struct):
    """A line of JSON; what else it holds is for others."""

    response: str
    provider: str | None = None


_decode_row = msgspec.json.Decoder(_Row).decode


def load_rules(config: str, *, is_named: bool) -> PolicySet:
    """Return the policies of a configuration; those that ship, where nobody named one and there is none."""
    if not is_named and not Path(config).exists():
        return parse_policies(load_shipped_policies())
    return load_policies(config)


def read_lines(stream: IO[bytes]) -> Iterator[Line]:
    """Yield the lines that are not empty, each cut to MAX_LINE_BYTES."""
    number = 0
    while octets := stream.readline(MAX_LINE_BYTES):
        number += 1
        is_whole = True
        rest = octets
        while not rest.endswith(b"\n") and (rest := stream.readline(MAX_LINE_BYTES)):
            is_whole = False
        octets = octets.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else octets.strip()
        if octets:
            yield Line(number, octets, is_whole)


def classify_line(policies: PolicySet, line: Line) -> dict[str, Any]:
    """Return what one line means, as `--json` prints it.

    Raises:
        BadLine: it begins as JSON does, and is no object with a `response`.
    """
    row = _parse_line(line)
    reply = parse_reply(row.response)
    provider = row.provider or ""
    verdict = policies.classifier.classify(reply, provider)
    enhanced = enhanced_of(reply)
    is_permanent = reply.is_permanent or (not reply.code and enhanced[:1] == "5")
    table = policies.categories[verdict.category]
    first, last = (
        table.action(verdict.basis, is_permanent=is_permanent, attempts=attempts)
        for attempts in (1, table.patience)
    )
    answer: dict[str, Any] = {"line": line.number, "response": row.response}
    if provider:
        answer["provider"] = provider
    answer |= {
        "code": reply.code or None,
        "enhanced": enhanced,
        "category": verdict.category,
        "rule": verdict.rule,
        "basis": verdict.basis,
        "action": first,
    }
    if last != first:
        answer |= {"later_action": last, "later_attempt": table.patience}
    return answer


def classify_stream(policies: PolicySet, stream: IO[bytes], name: str, as_json: bool) -> bool:
    """Print what each line means; return whether all of them were replies."""
    is_good = True
    place = "standard input" if name == "-" else name
    for line in read_lines(stream):
        try:
            answer = classify_line(policies, line)
        except BadLine as error:
            is_good = False
            text = f"{place}:{line.number}: {error}"
            if as_json:
                click.echo(json.dumps({"line": line.number, "error": text}))
            else:
                click.echo(f"mailrail: {text}", err=True)
            continue
        click.echo(json.dumps(answer, ensure_ascii=False) if as_json else format_answer(answer))
    return is_good


def format_answer(answer: dict[str, Any]) -> str:
    """Return one answer as a line for people."""
    action = answer["action"]
    if "later_action" in answer:
        action += f", {answer['later_action']} at attempt {answer['later_attempt']}"
    text = " ".join(answer["response"].split())
    shown = text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."
    return f"{answer['category']:<19} {answer['rule'] or '-':<27} {action:<28} {shown}"


def _parse_line(line: Line) -> _Row:
    if not line.octets.startswith(b"{"):
        return _Row(_decode(line.octets))
    if not line.is_whole:
        raise BadLine(f"expected an object of JSON of at most {MAX_LINE_BYTES:,} octets, got a longer line")
    try:
        return _decode_row(line.octets)
    except UNDECODABLE as error:
        raise BadLine(f'expected an object of JSON with a "response" ({error})') from error


def _decode(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")  # peers of old; a cut line ends anywhere
