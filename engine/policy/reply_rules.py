"""What [[classify]] and [category.NAME] of the policy files say, parsed.

A rule with `match` goes by the text; one without by the enhanced code, or by the code alone. In that order
they are asked; a later file's rules before an earlier one's; within a file as they stand. The first that fits
decides. A rule that a later file names again is replaced by it.

Owns: the keys of both tables, the order of rules.
Never: matches (classify does).
Fails: ConfigError with file, line and key; for a pattern that is wrong, or whose program is too large.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import re2

from engine.core import fields
from engine.core.document import Document, KeyPath
from engine.core.errors import ConfigError, Origin
from engine.core.fields import Field, describe, read_table, require_table, show
from engine.policy.categories import ACTIONS, CATEGORIES, CategoryRow

MAX_RULES = 10_000
# Of one compiled pattern with its cache of states: a page of alternatives fits, counted repetitions of
# counted ones don't. 20,000 texts that nobody would write grow a shard by 11 MB; with 1 MiB, by 28 MB.
MAX_PATTERN_BYTES = 1 << 18
MAX_PATTERN_CHARS = 2000

_CODE = re.compile(r"000|[45](?:xx|[0-9]{2})")

TEXT, ENHANCED, CODE = BASES = ("text", "enhanced", "code")  # what a rule goes by, strongest first


class Rule(NamedTuple):
    """One [[classify]] table."""

    name: str
    origin: Origin
    category: str  # "" for a rule that is off
    match: tuple[str, ...]
    codes: tuple[str, ...]  # "550", "4xx"
    enhanced: tuple[str, ...]  # "5.1.1", "x.7.26", "4.7.x"
    providers: tuple[str, ...]
    samples: tuple[str, ...]

    @property
    def basis(self) -> str:
        """What it goes by."""
        return TEXT if self.match else ENHANCED if self.enhanced else CODE

    def fits(self, code: int, enhanced: str, provider: str) -> bool:
        """Return whether code, enhanced code and provider are as the rule wants them."""
        return (
            (not self.codes or any(_fits_code(each, code) for each in self.codes))
            and (not self.enhanced or any(_fits_enhanced(each, enhanced) for each in self.enhanced))
            and (not self.providers or provider in self.providers)
        )


class CategorySection(NamedTuple):
    """One key of a [category.NAME] table, over all files that have it."""

    values: dict[str, Any]
    origins: dict[str, Origin]


class ClassifyLayers:
    """All that the policy files say of classification."""

    __slots__ = ("categories", "rules")

    def __init__(self) -> None:
        self.rules: dict[str, Rule] = {}  # by name; in the order in which they were read
        self.categories: dict[str, CategorySection] = {}

    def in_order(self) -> tuple[Rule, ...]:
        """Return the rules that are on, in the order in which they are asked."""
        files = {rule.origin.file: 0 for rule in self.rules.values()}
        rank = {file: -number for number, file in enumerate(files)}
        return tuple(
            sorted(
                (rule for rule in self.rules.values() if rule.category),
                key=lambda rule: (BASES.index(rule.basis), rank[rule.origin.file]),
            )
        )

    def table(self) -> dict[str, CategoryRow]:
        """Return what is done about each category."""
        return {name: CategoryRow(**section.values) for name, section in self.categories.items()}


def add_rules(document: Document, layers: ClassifyLayers) -> None:
    """Read the [[classify]] tables of a file."""
    for rule in _read_rules(document):
        layers.rules.pop(rule.name, None)
        layers.rules[rule.name] = rule
    if len(layers.rules) > MAX_RULES:
        raise ConfigError(document.origin(("classify",)), f"[[classify]]: more than {MAX_RULES:,} rules")


@lru_cache(16)
def _read_rules(document: Document) -> tuple[Rule, ...]:
    """Read them once: the files that ship are the same at each reload."""
    raw = document.table["classify"]
    if not isinstance(raw, list):
        raise ConfigError(document.origin(("classify",)), f"expected [[classify]], got {show(raw)}")
    rules: dict[str, Rule] = {}
    for index, table in enumerate(raw):
        rule = _read_rule(document, ("classify", index), table)
        if rule.name in rules:
            detail = f"{describe(('classify', index))}: the file has a rule {rule.name!r} already"
            raise ConfigError(rule.origin, f"{detail}, in line {rules[rule.name].origin.line}")
        rules[rule.name] = rule
    return tuple(rules.values())


def add_categories(document: Document, layers: ClassifyLayers) -> None:
    """Read the [category.NAME] tables of a file."""
    for name, table in require_table(document, ("category",), document.table["category"]).items():
        path = ("category", name)
        fields.is_known(document, ("category",), name, CATEGORIES)
        section = layers.categories.setdefault(name, CategorySection({}, {}))
        section.values.update(read_table(document, path, table, CATEGORY))
        for key in table:
            section.origins[CATEGORY[key].attribute] = document.origin((*path, key))


def require_categories(layers: ClassifyLayers) -> None:
    """Complain where a category lacks a key: defaults stand in the file that ships, and nowhere else."""
    for name in CATEGORIES:
        section = layers.categories.get(name, CategorySection({}, {}))
        for key, field in CATEGORY.items():
            if field.attribute not in section.values:
                origin = next(iter(section.origins.values()), Origin("policies", 0))
                raise ConfigError(
                    origin, f"[category.{name}]: key {key} is missing; defaults stand in default.toml"
                )


def _read_rule(document: Document, path: KeyPath, table: Any) -> Rule:
    values = read_table(document, path, table, RULE)
    origin = document.origin(path)
    where = f"{describe(path)} ({values['name']})"
    is_off = values.pop("is_off", False)
    if is_off:
        if len(values) > 1:
            raise ConfigError(origin, f"{where}: off = true stands with the name alone")
        return Rule(values["name"], origin, "", (), (), (), (), ())
    for key in ("category", "samples"):
        if key not in values:
            raise ConfigError(origin, f"{where}: key {key} is missing")
    rule = Rule(origin=origin, **{"match": (), "codes": (), "enhanced": (), "providers": (), **values})
    if not (rule.match or rule.codes or rule.enhanced):
        raise ConfigError(origin, f"{where}: none of match, enhanced and code: it would fit everything")
    return rule


def compile_options() -> re2.Options:
    """Return how patterns are compiled: any case, in bounded memory, silently."""
    options = re2.Options()
    options.case_sensitive = False
    options.never_capture = True
    options.log_errors = False
    options.max_mem = MAX_PATTERN_BYTES
    return options


def read_pattern(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_PATTERN_CHARS:
        raise ValueError(f"expected a pattern of 1 to {MAX_PATTERN_CHARS:,} characters")
    complaint = _fault_of(value)
    if complaint:
        raise ValueError(complaint)
    return value


@lru_cache(2 * MAX_RULES)
def _fault_of(pattern: str) -> str:
    """Return what is wrong with a pattern; "" where it is good. Found once: compiling takes 0.1 ms."""
    try:
        compiled = re2.compile(pattern, compile_options())
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        return f"expected a pattern in RE2's syntax ({reason})"
    return "expected a pattern that does not match the empty text" if compiled.search("") else ""


def _code(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and _CODE.fullmatch(text):
        return text
    raise ValueError('expected a code such as 550, or "4xx" or "5xx" ("000" for what has none)')


def _enhanced(value: Any) -> str:
    if isinstance(value, str):
        first, *rest = value.split(".")
        if first in ("4", "5", "x") and len(rest) == 2 and all(_is_part(part) for part in rest):
            return value
    raise ValueError('expected an enhanced code such as "5.1.1", "x.7.26" or "5.7.x"')


def _is_part(part: str) -> bool:
    return part == "x" or (part.isdecimal() and part.isascii() and len(part) <= 3)


def _lower_name(value: Any) -> str:
    return fields.name(value).lower()


def _fits_code(wanted: str, code: int) -> bool:
    if wanted[1:] == "xx":
        return code // 100 == int(wanted[0])
    return code == int(wanted)


def _fits_enhanced(wanted: str, enhanced: str) -> bool:
    if wanted == enhanced:
        return True
    if "x" not in wanted or not enhanced:
        return False
    return all(a in ("x", b) for a, b in zip(wanted.split("."), enhanced.split("."), strict=True))


RULE = {
    "name": Field("name", fields.name, required=True),
    "match": Field("match", fields.one_or_many(read_pattern, 100)),
    "code": Field("codes", fields.one_or_many(_code, 100)),
    "enhanced": Field("enhanced", fields.one_or_many(_enhanced, 100)),
    "provider": Field("providers", fields.one_or_many(_lower_name, 100)),
    "category": Field("category", fields.choice(*CATEGORIES)),
    "samples": Field("samples", fields.many(fields.text, 1, 1000)),
    "off": Field("is_off", fields.boolean),
}
CATEGORY = {
    "temporary": Field("temporary", fields.choice(*ACTIONS)),
    "permanent": Field("permanent", fields.choice(*ACTIONS)),
    "patience": Field("patience", fields.whole(1, 100)),
    "wait_factor": Field("wait_factor", fields.whole(1, 100)),
}


def of_basis(rules: Iterable[Rule], basis: str) -> list[Rule]:
    """Return the rules that go by that, in their order."""
    return [rule for rule in rules if rule.basis == basis]
