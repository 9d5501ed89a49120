"""docs/operations.md names every reason that decide gives; docs/architecture.md every row of the code."""

from __future__ import annotations

import ast
import re
import tomllib

from engine.inject import attempts, passwords
from engine.inject.listener import SWEEP_S
from engine.inject.shedding import CALM_S, make_measures
from engine.inject.smtp import CERTIFICATE_TICKS
from engine.settings.model import EngineSettings
from tests.docs.pages import ROOT, blocks, read_page, read_rows, section


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


def test_bounds_of_log_ins_are_those_of_the_code() -> None:
    text = " ".join(section(read_page("operations"), "## Log-ins").split())
    assert f"answered after {passwords.FAILURE_S:g} s" in text
    assert f"with up to {passwords.MAX_WAITING} waiting" in text
    assert f"counts failures for {attempts.WINDOW_S / 60:g} minutes" in text
    assert f"after {attempts.MAX_FAILURES_PER_ADDRESS} from one address" in text
    assert f"after {attempts.MAX_FAILURES_PER_USER} for one user" in text


def test_certificates_are_looked_at_as_often_as_the_page_says() -> None:
    text = section(read_page("operations"), "## Certificates")
    assert f"looked at every {CERTIFICATE_TICKS * SWEEP_S:g} s" in text


def test_reasons_for_shedding_load_are_those_of_the_code() -> None:
    page = section(read_page("operations"), "## Shedding load")
    settings = EngineSettings(hostname="a", data_dir="/a", max_inbound_connections=1)
    reads = dict.fromkeys(("lag_s", "staged_bytes", "window_bytes", "connections"), lambda: 0.0)
    rows = {row[0].strip("`"): row[2] for row in read_rows(page)}
    measures = make_measures(settings, **reads)
    assert list(rows) == [each.reason for each in measures]
    parts = {"half": 0.5, "one and a half times": 0.75, "nine tenths": 0.9}
    assert [parts[rows[each.reason]] for each in measures] == [each.low / each.high for each in measures]
    assert f"for {CALM_S:g} s" in " ".join(page.split())
