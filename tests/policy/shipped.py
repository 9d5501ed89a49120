"""The policies that ship, as texts, and what `check` finds in files of operators over them."""

from __future__ import annotations

from pathlib import Path

from engine.policy.check import check_policies
from engine.policy.parse import parse_policies

DIRECTORY = Path(__file__).parents[2] / "policies"
# In the order in which they are read: engine.loading.
FILES = [DIRECTORY / "default.toml", *sorted(DIRECTORY.glob("[pr]*.toml"))]
SHIPPED = [(f"policies/{file.name}", file.read_text()) for file in FILES]
DEFAULT = SHIPPED[0][1]


def findings(*texts: str) -> list[str]:
    """Check operators' files, called f, g, h, over the defaults."""
    files = [("policies/default.toml", DEFAULT), *zip("fgh", texts, strict=False)]
    return [str(found) for found in check_policies(parse_policies(files))]


def errors(*texts: str) -> list[str]:
    """Return what makes `mailrail check` exit 1."""
    return [found for found in findings(*texts) if ": error: " in found]


def errors_over_shipped(text: str) -> list[str]:
    """Return the errors in an operator's file f over all that ships."""
    found = check_policies(parse_policies([*SHIPPED, ("f", text)]))
    return [str(each) for each in found if each.severity == "error"]
