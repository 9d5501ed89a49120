from __future__ import annotations

import json
from pathlib import Path

from engine.rig.job import Planned, load_plan, write_plan


def test_plan_comes_back_as_jobs(tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    write_plan(
        path, [Planned("a-1", "s@a.example", ["u@d.example"], 2_000, "Hello"), Planned("a-2", "", [], 10)]
    )
    first, second = load_plan(path)
    assert (first.test_id, first.sender, first.recipients, first.subject) == (
        "a-1",
        "s@a.example",
        ["u@d.example"],
        "Hello",
    )
    assert abs(len(first.body) - 2_000) <= 2
    assert second.test_id == "a-2"


def test_content_and_record_name_the_job(tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    write_plan(path, [Planned("a-1", "s@a.example", ["u@d.example"], 100, "Hello")])
    (job,) = load_plan(path)
    content = job.make_content(7.5)
    assert b"\r\nX-Test-Id: a-1\r\n" in content
    assert b"\r\nSubject: Hello (a-1)\r\n" in content
    assert content.endswith(job.body)
    assert json.loads(job.record(8.0)) == {"id": "a-1", "rcpt": ["u@d.example"], "t": 8.0, "sent": 7.5}
