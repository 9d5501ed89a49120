"""One answer out of every shard's.

Shards own their messages and vmtas, so most rows of two shards never mean the same thing; queues do
(one customer's mail for one domain waits on several shards).

Field names say how two rows of one thing are added: `*_at` is the earliest, other numbers add up, of
texts the first that is not empty stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Row = dict[str, Any]


def merge_rows(
    answers: Mapping[int, Mapping[str, Any]], key: tuple[str, ...], order: tuple[str, ...], limit: int
) -> tuple[list[Row], bool]:
    """Return the rows of all shards, ordered, and whether these are all that there are.

    Args:
        answers: by shard, {"rows": [...], "is_whole": bool}.
        key: fields that tell things apart; where there are none each row stays, marked with its shard.
        order: fields to sort by; "-" in front sorts from the largest.
    """
    rows = _add_up(answers, key) if key else _mark(answers)
    for field in reversed(order):
        rows.sort(key=_sort_key(field.removeprefix("-")), reverse=field.startswith("-"))
    is_whole = len(rows) <= limit and all(answer.get("is_whole", True) for answer in answers.values())
    return rows[:limit], is_whole


def merge_rules(answers: Iterable[Mapping[str, Any]]) -> dict[str, list[Row]]:
    """Return rules with their counts added up, and what is in force, once where several shards have it."""
    rules: dict[str, Row] = {}
    reactions: dict[str, Row] = {}
    for answer in answers:
        for row in answer.get("rules", ()):
            known = rules.setdefault(row["rule"], {**row, "matched": 0, "fired": 0})
            known["matched"] += row["matched"]
            known["fired"] += row["fired"]
        for row in answer.get("reactions", ()):
            first = reactions.setdefault(row["key"], row)
            if row["until_at"] > first["until_at"]:
                reactions[row["key"]] = row
    return {"rules": list(rules.values()), "reactions": sorted(reactions.values(), key=_until)}


def _until(row: Row) -> float:
    return float(row["until_at"])


def add_counts(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums of numbers that stand under the same names, at any depth."""
    total: dict[str, Any] = {}
    for answer in answers:
        for name, value in answer.items():
            if isinstance(value, Mapping):
                total[name] = add_counts([total.get(name, {}), value])
            elif _is_number(value):
                total[name] = (
                    min(total.get(name, value), value) if name.endswith("_at") else total.get(name, 0) + value
                )
    return total


def _mark(answers: Mapping[int, Mapping[str, Any]]) -> list[Row]:
    return [{**row, "shard": shard} for shard, answer in answers.items() for row in answer.get("rows", ())]


def _add_up(answers: Mapping[int, Mapping[str, Any]], key: tuple[str, ...]) -> list[Row]:
    found: dict[tuple[Any, ...], Row] = {}
    for answer in answers.values():
        for row in answer.get("rows", ()):
            name = tuple(row.get(field) for field in key)
            known = found.get(name)
            found[name] = dict(row) if known is None else _add(known, row, key)
    return list(found.values())


def _add(known: Row, row: Row, key: tuple[str, ...]) -> Row:
    for field, value in row.items():
        before = known.get(field)
        if field in key:
            continue
        if not _is_number(value) or not _is_number(before):
            known[field] = before or value
        elif field.endswith("_at"):
            known[field] = min(before, value)
        else:
            known[field] = before + value
    return known


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sort_key(field: str) -> Any:
    def key(row: Row) -> tuple[bool, Any]:
        value = row.get(field)
        return (_is_number(value), value if _is_number(value) else str(value or ""))

    return key
