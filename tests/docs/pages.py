"""The reference pages, read as text: their tables, their links, their examples.

Owns: the form that a page must have for its test.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "deploy").glob("*/*.md"))


def read_page(name: str) -> str:
    """Return the text of docs/NAME.md, or of a page at the top."""
    page = ROOT / f"{name}.md" if name.isupper() else ROOT / "docs" / f"{name}.md"
    return page.read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next of its rank or a higher one."""
    rank = heading.index(" ")
    found = re.search(rf"^{re.escape(heading)}$\n(.*?)(?=^#{{1,{rank}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no heading {heading!r}"
    return found[1]


def read_rows(text: str) -> list[list[str]]:
    """Return the cells of every row of every table, heads left out."""
    rows: list[list[str]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        is_head = number + 1 < len(lines) and set(lines[number + 1]) <= set("|- ") and lines[number + 1]
        if line.startswith("|") and not is_head and not set(line) <= set("|- "):
            rows.append([cell.strip().replace("\\|", "|") for cell in line.strip("|").split(" | ")])
    return rows


def read_names(text: str) -> list[str]:
    """Return what stands in backquotes in the first column."""
    return [row[0].strip().strip("`") for row in read_rows(text)]


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
