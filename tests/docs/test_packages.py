"""The layout of the code: maps of packages, a test file for each module, and how long a module may be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MAX_LINES = 450
MODULES = sorted(path for path in (ROOT / "engine").glob("*/*.py") if path.name != "__init__.py")
PACKAGES = sorted({path.parent for path in MODULES} | {ROOT / "bench"})


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def is_mapped(module: str, text: str) -> bool:
    """It has a row; a name that no prose would hold may stand in the row of another."""
    row = rf"^ *{module} +\S"
    return bool(re.search(rf"{row}|\b{module}\b" if "_" in module else row, text, re.MULTILINE))


@pytest.mark.parametrize("package", names(PACKAGES))
def test_the_map_of_a_package_has_a_row_for_each_module_and_no_other(package: str) -> None:
    folder = ROOT / package
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    modules |= {path.parent.name for path in folder.glob("*/__init__.py")}
    text = (folder / "__init__.py").read_text()
    missing = [module for module in sorted(modules) if not is_mapped(module, text)]
    assert missing == []
    aligned = set(re.findall(r"^(\w+) {2,}\S", text, re.MULTILINE))
    assert sorted(aligned - modules) == []


@pytest.mark.parametrize("module", names(MODULES))
def test_a_module_has_a_test_file_of_its_own(module: str) -> None:
    package, name = Path(module).parts[1:]
    assert (ROOT / "tests" / package / f"test_{name}").exists()


def test_no_module_is_too_long() -> None:
    paths = [*ROOT.glob("engine/**/*.py"), *ROOT.glob("bench/**/*.py")]
    assert [path for path in paths if len(path.read_text().splitlines()) > MAX_LINES] == []
