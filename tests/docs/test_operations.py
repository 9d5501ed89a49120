"""docs/operations.md names every reason that decide gives; docs/architecture.md every row of the code."""

from __future__ import annotations

import ast
import re
import tomllib

from tests.docs.pages import ROOT, blocks, read_page, section


def test_every_reason_of_decide_is_in_the_table() -> None:
    tree = ast.parse((ROOT / "engine" / "queue" / "decide.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = ("_no", "_spent")
    reasons = [node.args[0] for node in calls if isinstance(node.func, ast.Name) and node.func.id in names]
    assert len(reasons) >= 8
    table = section(read_page("operations"), "## Reading `explain` and `paths`")
    for reason in reasons:
        text = ast.unparse(reason).strip("f'\"")
        words = re.split(r"\{[^}]*\}", text)[0].strip()
        assert words in table, text


def test_caps_are_in_the_table_by_their_names() -> None:
    table = section(read_page("operations"), "## Reading `explain` and `paths`")
    for file in ("shard/build.py", "delivery/paths.py"):
        for name in re.findall(r'Cap\("([^"]+)"', (ROOT / "engine" / file).read_text()):
            assert f"`{name} N reached`" in table


def test_rows_of_the_architecture_page_are_those_that_the_linter_holds() -> None:
    drawn = blocks(section(read_page("architecture"), "## Rows"), "")[0]
    rows = [set(re.split(r"\s{2,}", line)[0].split(" · ")) for line in drawn.splitlines()]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert rows == [set(re.findall(r"engine\.(\w+)", layer)) for layer in layers]
