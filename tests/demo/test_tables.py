from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from engine.demo.configuration import Places
from engine.demo.tables import print_places, print_verdict, to_values
from engine.demo.verdict import judge
from tests.demo.conftest import FAST, SOURCE, GoodRun


def printed(run: GoodRun) -> str:
    out = io.StringIO()
    verdict = judge(run.scenario, run.account(), run.handed_over, run.shards)
    print_verdict(Console(file=out, width=200), run.scenario, verdict, 10.0)
    return out.getvalue()


def test_table_shows_sources_limits_and_fates(run: GoodRun) -> None:
    text = printed(run)
    for part in (SOURCE, "mail1.acme.example", "10 of 10 in 1 s", "2 of 2", "lost 0, duplicates 0", "agrees"):
        assert part in text
    assert "disagrees" not in text


def test_findings_stand_below_the_table(run: GoodRun) -> None:
    del run.lines[run.find(SOURCE, FAST, 50)]
    text = printed(run)
    assert "disagrees (1)" in text
    assert "1 lost: acme-fast.example-50" in text


def test_values_for_programs_are_json(run: GoodRun) -> None:
    verdict = judge(run.scenario, run.account(), run.handed_over, run.shards)
    values = json.loads(json.dumps(to_values(run.scenario, verdict, 10.0)))
    assert (values["is_good"], values["lost"], values["duplicates"]) == (True, 0, 0)
    assert len(values["paths"]) == 4


def test_places_say_where_to_look(tmp_path: Path) -> None:
    out = io.StringIO()
    print_places(Console(file=out, width=200), Places(tmp_path, 2600, 8025, {}))
    text = out.getvalue()
    for part in ("http://127.0.0.1:8025/metrics", "events", "mailrail status -c", "Ctrl-C"):
        assert part in text
