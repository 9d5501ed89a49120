"""docs/standards.md and the tests name the same clauses, in both directions.

The order of sections and rows is free. A row's first column may name several clauses, its last several tests;
a row without an RFC (what has no number, like the smuggling of 2023) needs only tests that exist.
"""

from __future__ import annotations

import re

import pytest

from tests.docs.citations import Clause, find_clauses, find_tests, is_within
from tests.docs.pages import read_page, read_rows

PAGE = read_page("standards")
NOT_YET = "## Not yet"
TESTED, _, REST = PAGE.partition(f"\n{NOT_YET}\n")
LACKING, _, BEHIND = REST.partition("\n## ")
TESTED += f"\n## {BEHIND}"  # a section merged in behind it
TESTS = find_tests()
ROWS = read_rows(TESTED)
_TEST = re.compile(r"tests/[\w./-]+\.py::\w+|tests/dialogues/[\w-]+\.dlg")


def clauses_of(row: list[str]) -> list[Clause]:
    """Return the clauses that a row is about."""
    return list(find_clauses(row[0]))


def named_in(row: list[str]) -> list[str]:
    """Return the tests and dialogues of a row."""
    return _TEST.findall(row[2])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2])[:60])
def test_a_row_names_tests_that_exist_and_cite_its_clause(row: list[str]) -> None:
    assert len(row) == 3, f"expected | RFC | requirement | test |: {row}"
    names = named_in(row)
    assert names, f"no test named as tests/path/test_file.py::test_name in {row[2]!r}"
    unknown = [name for name in names if name not in TESTS]
    assert not unknown, f"no such test: {unknown}"
    wanted = clauses_of(row)
    for name in names if wanted else ():
        cited = TESTS[name].anywhere
        assert any(is_within(clause, outer) for clause in cited for outer in wanted), (
            f"{name} cites {sorted(cited)} in its docstring and comments, none of {row[0]!r}"
        )
    for outer in wanted:
        cited = frozenset().union(*(TESTS[name].anywhere for name in names))
        assert any(is_within(clause, outer) for clause in cited), f"no test of the row cites RFC {outer}"


def test_every_test_that_cites_a_clause_has_a_row() -> None:
    """One at least: what else it cites may be said in passing."""
    named = {name for row in ROWS for name in named_in(row)}
    missing = sorted(
        f"{name} cites {sorted(found.docstring)}"
        for name, found in TESTS.items()
        if found.docstring and name not in named
    )
    assert not missing, "cites in its docstring, without a row in docs/standards.md:\n" + "\n".join(missing)


def test_what_is_tested_is_not_listed_as_lacking_whole() -> None:
    tested = {number for row in ROWS for number, _ in clauses_of(row)}
    stale = [
        row for row in read_rows(LACKING) for number, part in clauses_of(row) if number in tested and not part
    ]
    assert not stale, f"tested now: take it out of {NOT_YET!r}, or name the section that lacks: {stale}"


def test_every_row_of_what_lacks_names_its_standard() -> None:
    assert all(len(row) == 2 for row in read_rows(LACKING))


# The numbers below stand for no requirement; they are cut from real docstrings and comments.
@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("RFC 5321 section 4.5.3.2.5: the timer is", [(5321, "4.5.3.2.5")]),
        ("RFC 5321 4.1.1.4: a refused DATA", [(5321, "4.1.1.4")]),
        ("obeys RFC 5321.", [(5321, "")]),
        ("RFC 2034 and 3463 (codes)", [(2034, ""), (3463, "")]),
        ("RFC 6698, 7671, 7672", [(6698, ""), (7671, ""), (7672, "")]),
        ("RFC 8461 sections 3.1, 5.1 and 10.2: what", [(8461, "3.1"), (8461, "5.1"), (8461, "10.2")]),
        ("RFC 8461 sections 3.1 to 3.3.", [(8461, "3.1"), (8461, "3.2"), (8461, "3.3")]),
        ("RFC 6152 3 with RFC 6376 5.3: what", [(6152, "3"), (6376, "5.3")]),
        ("RFC 3463 section 3.8, X.7.5: failure", [(3463, "3.8")]),
        ("RFC 8446 appendix C.4: tickets", [(8446, "C.4")]),
        ("RFC 3207, RFC 4954, RFC 6409 4.3: both", [(3207, ""), (4954, ""), (6409, "4.3")]),
        ("RFC 5321 4.1.1, 4.3; RFC 2920 3.1", [(5321, "4.1.1"), (5321, "4.3"), (2920, "3.1")]),
        ("RFC 7505: 556 and 5.1.10", [(7505, "")]),
        ("no number", []),
    ],
)
def test_citations_are_found(text: str, clauses: list[Clause]) -> None:
    assert list(find_clauses(text)) == clauses
