"""RFC clauses as people cite them, and the tests that cite them.

    RFC 5321 4.5.3.2, RFC 5321 section 4.5.3.2, RFC 8461 sections 3.1, 5.1 and 10.2, RFC 6698, 7671 and 7672,
    RFC 8461 sections 3.1 to 3.3, RFC 5321 appendix F.2

A test cites in its docstring, in a comment inside it, or in a comment right above it; a dialogue in its
comments. Tests are found by their syntax trees, so that what needs a missing program is found too.

Owns: what counts as a citation, and whose it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.pages import ROOT

Clause = tuple[int, str]  # (5321, "4.5.3.2"), or (5321, "") for the whole of it

_LEAST_NUMBER = 700  # RFC 768 is the oldest that anybody here would cite; no section has such a number
_SEPARATOR = r"(?:,? and |, ?|; ?| to | / ?)"
_SECTION = r"(?:\d+(?:\.\d+)*|[A-WYZ]\.\d+(?:\.\d+)*|(?<=appendix )[A-Z]\b)"
_ITEM = rf"(?:(?:sections?|appendix|§) ?)?{_SECTION}(?![\w%]|\.\d)"
_CITATION = re.compile(rf"RFC[ -]?(\d{{3,5}})((?:(?:,? ?|{_SEPARATOR}){_ITEM})*)")


@dataclass(frozen=True)
class Found:
    """What one test or dialogue cites."""

    docstring: frozenset[Clause] = frozenset()  # a dialogue's comments count as its docstring
    anywhere: frozenset[Clause] = field(default_factory=frozenset)


def find_clauses(text: str) -> Iterator[Clause]:
    """Yield every clause that a text cites."""
    for match in _CITATION.finditer(" ".join(text.replace("#", " ").split())):
        number, has_section = int(match[1]), False
        pieces = re.findall(rf"( to )?(?:(sections?|appendix|§) ?)?({_SECTION})", match[2])
        before = ""
        for to, _, section in pieces:
            if section.isdigit() and int(section) >= _LEAST_NUMBER:
                if not has_section:
                    yield number, ""
                number, has_section, before = int(section), False, ""
                continue
            for one in _between(before, section) if to and before else ():
                yield number, one
            yield number, section
            has_section, before = True, section
        if not has_section:
            yield number, ""


def _between(first: str, last: str) -> Iterator[str]:
    """Yield the sections between two neighbors of one parent."""
    parent, _, start = first.rpartition(".")
    other, _, end = last.rpartition(".")
    if parent == other and start.isdigit() and end.isdigit():
        yield from (
            f"{parent}.{number}" if parent else f"{number}" for number in range(int(start) + 1, int(end))
        )


def is_within(clause: Clause, outer: Clause) -> bool:
    """Say whether a clause is another or a part of it."""
    return clause[0] == outer[0] and f"{clause[1]}.".startswith(f"{outer[1]}." if outer[1] else "")


def find_tests() -> dict[str, Found]:
    """Return what every test and every dialogue cites, under the name that a page gives it."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        found |= {f"{path.relative_to(ROOT)}::{name}": cited for name, cited in _read_module(path)}
    for path in sorted((ROOT / "tests" / "dialogues").glob("*.dlg")):
        comments = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
        cited = frozenset(find_clauses(comments))
        found[str(path.relative_to(ROOT))] = Found(cited, cited)
    return found


def _read_module(path: Path) -> Iterator[tuple[str, Found]]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            docstring = ast.get_docstring(node) or ""
            yield (
                node.name,
                Found(
                    frozenset(find_clauses(docstring)),
                    frozenset(find_clauses(f"{docstring}\n{_comments(lines, node)}")),
                ),
            )


def _comments(lines: list[str], node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the comments above a test and in it, its parameters included."""
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    while start and lines[start - 1].startswith("#"):
        start -= 1
    comments = [line[line.index("#") :] for line in lines[start : node.end_lineno] if "#" in line]
    return "\n".join(comments)
