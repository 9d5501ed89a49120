from __future__ import annotations

import json
from pathlib import Path

from engine.demo.feeding import main
from engine.rig.job import Planned, write_plan


def test_spool_feed_renames_whole_files_and_records_them(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    for name in ("tmp", "new"):
        (spool / name).mkdir(parents=True)
    plan, record = tmp_path / "plan", tmp_path / "record"
    write_plan(
        plan, [Planned(f"u-{n}", "s@u.example", ["a@d.example", "b@d.example"], 500) for n in range(3)]
    )
    options = ["--to", str(spool), "--plan", str(plan), "--accepted", str(record), "--rate", "1000"]
    assert main(["spool", *options]) == 0
    assert not list((spool / "tmp").iterdir())
    files = sorted((spool / "new").iterdir())
    assert [file.name for file in files] == ["u-0.eml", "u-1.eml", "u-2.eml"]
    head = files[0].read_bytes().split(b"\r\n", 4)
    assert head[:3] == [b"X-Sender: s@u.example", b"X-Receiver: a@d.example", b"X-Receiver: b@d.example"]
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(line["id"], line["rcpt"]) for line in lines] == [
        (f"u-{n}", ["a@d.example", "b@d.example"]) for n in range(3)
    ]
