from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.rig.job import Planned, write_plan
from engine.rig.load import Load, Target
from engine.rig.source import make_parser

TARGET = Target("127.0.0.1", 2525, "a@b.example")


class Idler:
    """A session that waits."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def make_load(*options: str, record: list[bytes] | None = None) -> Load:
    arguments = make_parser().parse_args(["--to", "127.0.0.1:2525", "--run", "r", *options])
    return Load(arguments, record.append if record is not None else None)


def test_only_accepted_messages_are_on_record() -> None:
    record: list[bytes] = []
    load = make_load("--messages", "2", record=record)
    first, second = load.next_job(TARGET), load.next_job(TARGET)
    assert first is not None
    assert second is not None
    load.note_accepted(first, 7.0)
    load.note_refused(second, 452)
    assert [json.loads(line)["id"] for line in record] == ["r-0"]
    assert load.is_done(TARGET)
    assert (load.report()["accepted"], load.report()["codes"]) == (1, {"250": 1, "452": 1})


def test_refused_message_is_offered_again_under_a_new_id() -> None:
    load = make_load("--messages", "1", "--until-accepted")
    job = load.next_job(TARGET)
    assert job is not None
    load.note_refused(job, 452)
    assert not load.is_done(TARGET)
    load.wake(float("inf"))
    again = load.next_job(TARGET)
    assert again is not None
    assert again.test_id == "r-1"
    load.note_accepted(again, 1.0)
    assert load.is_done(TARGET)


def test_idle_sessions_are_woken_when_all_is_offered_so_that_they_quit() -> None:
    load = make_load("--messages", "1")
    job = load.next_job(TARGET)
    assert job is not None
    idler = Idler()
    load.wait(idler)
    load.wake(0.0)
    assert idler.woken == 0
    load.note_uncertain(job)
    load.wake(0.0)
    assert idler.woken == 1
    assert load.report()["uncertain_ids"] == ["r-0"]


def test_sizes_are_mixed_by_weight() -> None:
    load = make_load("--size", "1000:3", "--size", "5000:1", "--messages", "1000")
    sizes = [len(job.body) for _ in range(64) if (job := load.next_job(TARGET))]
    assert sum(size < 3000 for size in sizes) == 48
    assert sum(size > 3000 for size in sizes) == 16


@pytest.mark.parametrize("size", [100, 10_000, 100_000])
def test_bodies_have_the_size_asked_for_and_need_no_stuffing(size: int) -> None:
    load = make_load("--size", str(size))
    job = load.next_job(TARGET)
    assert job is not None
    assert abs(len(job.body) - size) <= 2
    assert b"\n." not in job.body
    assert job.body.count(b"\n") == job.body.count(b"\r\n")


def test_plan_is_offered_in_its_order_and_then_done(tmp_path: Path) -> None:
    plan = tmp_path / "plan.jsonl"
    write_plan(plan, [Planned(f"p-{number}", "s@a.example", ["u@d.example"], 100) for number in range(2)])
    load = make_load("--plan", str(plan))
    jobs = [load.next_job(TARGET) for _ in range(3)]
    assert [job.test_id for job in jobs if job] == ["p-0", "p-1"]
    assert load.is_done(TARGET)
    assert load.report()["wanted"] == 2
