"""From the texts of policy files to a `PolicySet`.

Owns: which sections there are, and how files that say the same section add up.
Never: reads a file. Does not know which vmtas and customers exist: whoever has the settings asks.
Fails: ConfigError that names file, line, key, what was expected and the nearest known key.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from engine.core.document import Document, KeyPath
from engine.core.errors import ConfigError, Origin
from engine.core.fields import (
    describe,
    hostname,
    is_known,
    name,
    read_value,
    require_table,
    suggest,
)
from engine.policy.fields import OF_THE_MESSAGE, POLICY, PROVIDER
from engine.policy.fold import PolicySet
from engine.policy.layers import Layers, Scope, Section, Setting
from engine.policy.on_reply import read_rules
from engine.policy.reply_rules import add_categories, add_rules, require_categories

_SECTIONS = ("default", "provider", "domain", "customer", "vmta", "category", "classify")
_KINDS = ("default", "provider", "domain")
_RESERVED = "other"  # the metrics' name for destinations without a name


def parse_policies(texts: Iterable[tuple[str, str]]) -> PolicySet:
    """Return the policies of (file name, text) pairs; the later file wins, key by key."""
    layers = Layers()
    for file, text in texts:
        document = _read_document(file, text)
        for key, table in document.table.items():
            is_known(document, (), key, _SECTIONS)
            _read_top(document, layers, key, table)
    _require_defaults(layers)
    require_categories(layers.classify)
    for section in layers.base.providers.values():
        _require_match(section)
    for scope in layers.scopes():
        for section in scope.all():
            _require_pair(section)
    for scope in (*layers.customers.values(), *layers.vmtas.values()):
        _require_providers(scope, layers.base.providers)
    return PolicySet(layers)


@lru_cache(16)
def _read_document(file: str, text: str) -> Document:
    """Scan a text once: at a reload, and in a shard that starts, most are those of before."""
    return Document(file, text)


def _read_top(document: Document, layers: Layers, key: str, table: Any) -> None:
    if key == "classify":
        add_rules(document, layers.classify)
        return
    if key == "category":
        add_categories(document, layers.classify)
        return
    if key in _KINDS:
        _read_kind(document, layers.base, (key,), table, frozenset({*POLICY, "on_reply"}))
        return
    scopes, keys = layers.customers, frozenset(POLICY)
    if key == "vmta":
        scopes, keys = layers.vmtas, keys.difference(OF_THE_MESSAGE)
    for owner, kinds in require_table(document, (key,), table).items():
        path = (key, owner)
        scope = scopes.setdefault(owner, Scope())
        for kind, below in require_table(document, path, kinds).items():
            _require_kind(document, path, kind)
            _read_kind(document, scope, (*path, kind), below, keys)


def _require_kind(document: Document, path: KeyPath, kind: str) -> None:
    """Complain about [customer.acme] with settings right below it, and about unquoted dots."""
    if kind in _KINDS:
        return
    hint = f'settings stand below {describe((*path, "default"))}, ...provider.NAME or ...domain."NAME"'
    detail = f"{describe(path)}: unknown key {kind!r}; {hint}"
    raise ConfigError(document.origin((*path, kind)), detail)


def _read_kind(document: Document, scope: Scope, path: KeyPath, table: Any, keys: frozenset[str]) -> None:
    """Read [....default], or every section below [....provider] or [....domain]."""
    kind = path[-1]
    if kind == "default":
        scope.default = _read_section(document, path, table, scope.default, keys)
        return
    sections, parse = (scope.providers, _provider_name) if kind == "provider" else (scope.domains, hostname)
    if path == ("provider",):
        keys |= PROVIDER.keys()
    spellings: dict[str, str] = {}
    for raw_name, below in require_table(document, path, table).items():
        here = (*path, raw_name)
        known_as = read_value(document, here, raw_name, parse)
        twin = spellings.setdefault(known_as, raw_name)
        if twin != raw_name:  # another file's section is meant to add to this one; here it is a slip
            first = (*path, twin)
            detail = f"{describe(here)}: the file has {describe(first)} already, in line"
            raise ConfigError(document.origin(here), f"{detail} {document.origin(first).line}")
        sections[known_as] = _read_section(document, here, below, sections.get(known_as), keys)


def _provider_name(value: Any) -> str:
    if value == _RESERVED:
        raise ValueError(f"expected a name that is not {_RESERVED!r}, which metrics use")
    return name(value)


def _read_section(
    document: Document, path: KeyPath, table: Any, section: Section | None, keys: frozenset[str]
) -> Section:
    """Add what the table says to the section, making it when this is the first file that has it."""
    section = section or Section(describe(path), document.origin(path))
    for key, raw in require_table(document, path, table).items():
        here = (*path, key)
        _require_key(document, path, key, raw, keys)
        if key == "on_reply":
            section.reply_rules += read_rules(document, here, raw, section.header, len(section.reply_rules))
            continue
        known = POLICY.get(key) or PROVIDER[key]
        store = section.settings if key in POLICY else section.attributes
        store[key] = Setting(raw, read_value(document, here, raw, known.parse), document.origin(here))
    return section


def _require_key(document: Document, path: KeyPath, key: str, raw: Any, keys: frozenset[str]) -> None:
    if key in keys:
        return
    origin = document.origin((*path, key))
    if key in OF_THE_MESSAGE:
        detail = "belongs to the message, which has no vmta while it waits; set it for a customer or a domain"
        raise ConfigError(origin, f"{describe(path)}: key {key}: {detail}")
    if isinstance(raw, dict) and isinstance(path[-1], str):
        detail = f'unknown section {key!r}; a name with dots stands in quotes: "{path[-1]}.{key}"'
        raise ConfigError(origin, f"{describe(path)}: {detail}")
    is_known(document, path, key, keys)


def _require_defaults(layers: Layers) -> None:
    section = layers.base.default or Section("[default]", Origin("policies", 0))
    for key in POLICY:
        if key not in section.settings:
            raise ConfigError(section.origin, f"[default]: key {key} is missing; every key has a value there")


def _require_match(section: Section) -> None:
    """A provider that nothing can match is a slip, most often of its name."""
    if "mx" not in section.attributes and "domains" not in section.attributes:
        raise ConfigError(section.origin, f"{section.header}: neither mx nor domains: nothing can match it")


def _require_pair(section: Section) -> None:
    """A certificate of one section with the key of another is a pair that nobody has seen together."""
    certificate, key = (section.settings.get(each) for each in ("tls_certificate", "tls_key"))
    found = certificate or key
    if found is None:
        return
    if certificate is None or key is None or bool(certificate.value) != bool(key.value):
        detail = "tls_certificate and tls_key stand together, in one section; they may name the same file"
        raise ConfigError(found.origin, f"{section.header}: {detail}")


def _require_providers(scope: Scope, providers: dict[str, Section]) -> None:
    for known_as, section in scope.providers.items():
        if known_as not in providers:
            detail = f"{section.header}: there is no provider {known_as!r}; {suggest(known_as, providers)}"
            raise ConfigError(section.origin, detail)
