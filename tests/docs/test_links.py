"""Links between pages lead somewhere, and files that a page names are there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, blocks


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_a_page_names_are_in_the_repository(page: Path) -> None:
    pattern = r"`((?:engine|policies|deploy|grafana|bench|docs|tests)/[\w./-]*)`"
    for name in re.findall(pattern, page.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_toml_of_a_page_is_toml(page: Path) -> None:
    for example in blocks(page.read_text(), "toml"):
        tomllib.loads(example)


def test_every_page_is_linked_from_the_first() -> None:
    first = (ROOT / "README.md").read_text()
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        assert name == "README.md" or f"({name})" in first, name


def test_benches_that_a_page_names_are_there() -> None:
    for page in PAGES:
        for name in re.findall(r"python -m (bench[\w.]*)", page.read_text()):
            file = ROOT / f"{name.replace('.', '/')}.py"
            assert file.exists() or (file.with_suffix("") / "__main__.py").exists(), name
