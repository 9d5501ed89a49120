from __future__ import annotations

import hashlib
import json
from pathlib import Path

from bench.classification import HELD_OUT, extend, find, read_labelled, score
from engine.loading import load_shipped_policies
from engine.policy.classify import Classifier
from engine.policy.parse import parse_policies

RULES = parse_policies(load_shipped_policies()).layers.classify.in_order()


def write(file: Path, *rows: tuple[str, str, list[str]]) -> Path:
    lines = [json.dumps({"response": text, "category": name, "also": also}) for text, name, also in rows]
    file.write_text("\n".join(lines))
    return file


def test_a_fifth_is_held_out_by_hash(tmp_path: Path) -> None:
    texts = [f"550 number {number}" for number in range(500)]
    seen, held_out = read_labelled(write(tmp_path / "f", *[(text, "other", []) for text in texts]))
    expected = sum(int(hashlib.sha256(text.encode()).hexdigest(), 16) % HELD_OUT == 0 for text in texts)
    assert (len(seen), len(held_out)) == (500 - expected, expected)
    assert 60 < expected < 140


def test_scores_are_strict_lenient_and_by_category(tmp_path: Path) -> None:
    rows = [
        ("550 user unknown", "bad-mailbox", []),
        ("550 no such user", "bad-mailbox", []),
        ("550 mailbox full", "bad-mailbox", ["quota-issues"]),
        ("550 blocked by spamhaus", "other", []),
    ]
    seen, held_out = read_labelled(write(tmp_path / "f", *rows))
    scores = score(Classifier(RULES), seen + held_out)
    assert (scores.strict, scores.lenient) == (50.0, 75.0)
    assert scores.macro_f1 == (2 * 2 / (2 + 3) + 0.0) / 2


def test_made_rules_stand_before_those_that_ship() -> None:
    rules = extend(RULES, 1000)
    assert len(rules) == 1000
    assert rules[-len(RULES) :] == RULES


def test_nothing_of_a_reply_is_printed(tmp_path: Path, monkeypatch: object) -> None:
    file = write(tmp_path / "f", *[(f"550 zebra {number}", "other", []) for number in range(20)])
    assert not any("zebra" in str(finding) for finding in find(file))
