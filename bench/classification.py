"""How well replies are classified, and how fast: `python -m bench.classification FILE`.

FILE has labelled replies, one object of JSON a line: `response`, `category`, and where more than one is right
`also`; `provider` is optional. A fifth of them, by hash of the text, is held out: the authors of the rules
have not read it. So its scores are the honest ones, as long as nobody looks at what was missed there.

    strict      the category is the one of the label
    lenient     ... or one of `also`
    macro-F1    mean over the categories, each counting the same however rare, of the harmonic mean of
                precision and recall by the strict measure

Speed, in processor time: a hit (the normal form is remembered), a miss (it is not), with the rules that ship
and with 3,000 of them; and a miss of texts made of the rules' own words in any order.

Owns: which fifth is held out.
Never: prints a reply.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.finding import Finding, format_findings, format_machine
from engine.core.errors import Origin
from engine.core.reply import Reply
from engine.loading import load_shipped_policies
from engine.policy.classify import Classifier
from engine.policy.normalize import normalize, parse_reply
from engine.policy.parse import parse_policies
from engine.policy.reply_rules import Rule

HELD_OUT = 5  # one in so many
RULES = 3000
ROUNDS = 7
HIT_AIM_US, MISS_AIM_US = 20.0, 200.0
STRICT_AIM, LENIENT_AIM = 85.0, 92.0


class Labelled(NamedTuple):
    """One reply of the file."""

    reply: Reply
    provider: str
    category: str
    also: tuple[str, ...]


class Scores(NamedTuple):
    """How well a set is classified; the first two in per cent."""

    strict: float
    lenient: float
    macro_f1: float


def read_labelled(file: Path) -> tuple[list[Labelled], list[Labelled]]:
    """Return those that may be looked at, and those held out."""
    parts: tuple[list[Labelled], list[Labelled]] = ([], [])
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip():
            row: dict[str, Any] = json.loads(line)
            text, provider = row["response"], row.get("provider") or ""
            is_held_out = int(hashlib.sha256(text.encode()).hexdigest(), 16) % HELD_OUT == 0
            labelled = Labelled(parse_reply(text), provider, row["category"], tuple(row.get("also") or ()))
            parts[is_held_out].append(labelled)
    return parts


def score(classifier: Classifier, labelled: list[Labelled]) -> Scores:
    """Compare what the rules say with the labels."""
    found = [classifier.classify(each.reply, each.provider).category for each in labelled]
    pairs = list(zip(found, labelled, strict=True))
    strict = sum(category == each.category for category, each in pairs)
    lenient = sum(category == each.category or category in each.also for category, each in pairs)
    right = Counter(category for category, each in pairs if category == each.category)
    said, meant = Counter(found), Counter(each.category for each in labelled)
    f1 = [2 * right[name] / (said[name] + meant[name]) for name in meant]
    count = max(1, len(labelled))
    return Scores(100 * strict / count, 100 * lenient / count, sum(f1) / max(1, len(f1)))


def extend(rules: tuple[Rule, ...], count: int) -> tuple[Rule, ...]:
    """Return the rules with others in front of them, made of their samples' words, up to `count`."""
    chance = random.Random(4)
    words = sorted({word for rule in rules for sample in rule.samples for word in _words(sample)})
    made = []
    for number in range(count - len(rules)):
        first, second, third = (chance.choice(words) for _ in range(3))
        pattern = (
            f"{first} {second} {third}",
            rf"\b{first}\b.*\b({second}|{third})\b",
            rf"{first}[ -]{second}\d+",
        )
        made.append(
            Rule(f"made-{number}", Origin("made", 0), "other", (pattern[number % 3],), (), (), (), ())
        )
    return (*made, *rules)


def shuffle_words(rules: tuple[Rule, ...], count: int) -> list[Reply]:
    """Return replies made of the samples' words in any order."""
    chance = random.Random(5)
    words = sorted({word for rule in rules for sample in rule.samples for word in _words(sample)})
    return [Reply(550, "", " ".join(chance.choice(words) for _ in range(20))) for _ in range(count)]


def _words(sample: str) -> list[str]:
    return [word for word in normalize(parse_reply(sample)).split() if word.isascii() and word.isalpha()]


def measure_us(work: Callable[[Reply], object], replies: list[Reply]) -> float:
    """Return the time of one call, the median of the rounds."""
    rounds = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for reply in replies:
            work(reply)
        rounds.append((time.process_time() - begun) / len(replies) * 1e6)
    return sorted(rounds)[ROUNDS // 2]


def find(file: Path) -> Iterator[Finding]:
    """Yield every figure."""
    rules = parse_policies(load_shipped_policies()).layers.classify.in_order()
    seen, held_out = read_labelled(file)
    classifier = Classifier(rules)
    for name, part in (("seen", seen), ("held out", held_out)):
        scores = score(classifier, part)
        note = f"{len(part)} replies"
        yield Finding(f"{name}: strict", scores.strict, "%", STRICT_AIM, is_ceiling=False, note=note)
        yield Finding(f"{name}: lenient", scores.lenient, "%", LENIENT_AIM, is_ceiling=False, note=note)
        yield Finding(f"{name}: macro-F1", scores.macro_f1, "", note=note)
    replies = [each.reply for each in (*seen, *held_out)] * 4
    for used in (rules, extend(rules, RULES)):
        remembering, forgetting = Classifier(used), Classifier(used, max_remembered=1)
        note = f"{len(used):,} rules"
        yield Finding("hit", measure_us(remembering.classify, replies), "us", HIT_AIM_US, note=note)
        yield Finding("miss", measure_us(forgetting.classify, replies), "us", MISS_AIM_US, note=note)
        shuffled = shuffle_words(rules, 1000)
        yield Finding("miss, words shuffled", measure_us(forgetting.classify, shuffled), "us", note=note)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="labelled replies")
    print(format_findings(find(parser.parse_args().file)))
    print(format_machine())


if __name__ == "__main__":
    main()
