"""At which line of mailrail.toml stands what can't come into force.

What fails is found out by those who know sockets, locks and values, but not the file: their errors name an
address or a path, or nothing. Here the line and the key are added.

Never: decides what is refused.
"""

from __future__ import annotations

from engine.core.document import Document, KeyPath
from engine.core.errors import ConfigError, Origin
from engine.core.fields import describe, show
from engine.loading import Texts
from engine.settings.fields import ENGINE
from engine.settings.model import Settings
from engine.supervisor.listeners import admin_place, listener_place


def refuse_change(old: Texts, new: Texts, attribute: str) -> ConfigError:
    """Return the refusal of a key of [engine] that only a restart can change; as written before and now."""
    key = next(key for key, field in ENGINE.items() if field.attribute == attribute)
    document = Document(new.config_path, new.settings)
    before = _as_written(Document(old.config_path, old.settings), key)
    after = _as_written(document, key)
    detail = f"key {key} can't change while the engine runs ({before} to {after}): restart it"
    return ConfigError(document.origin(("engine", key)), f"[engine]: {detail}")


def locate_place(texts: Texts, settings: Settings, error: ConfigError) -> ConfigError:
    """Return the error of an address or path that can't be listened on, at the line that asks for it."""
    failed = error.origin.file
    for index, row in enumerate(settings.listeners):
        place = listener_place(row)
        if place is not None and place.key.partition(":")[2] == failed:
            return _at(texts, ("listener", index, "path" if place.path else "listen"), error)
    assert admin_place(settings.admin).key.partition(":")[2] == failed, f"nobody listens at {failed}"
    return _at(texts, ("admin", "listen"), error)


def locate_data_dir(texts: Texts, error: ConfigError) -> ConfigError:
    """Return the error of a data directory that can't be used, at the line that names it."""
    return _at(texts, ("engine", "data_dir"), error)


def _as_written(document: Document, key: str) -> str:
    table = document.table["engine"]
    return show(table[key]) if key in table else "its default"


def _at(texts: Texts, path: KeyPath, error: ConfigError) -> ConfigError:
    origin: Origin = Document(texts.config_path, texts.settings).origin(path)
    return ConfigError(origin, f"{describe(path[:-1])}: key {path[-1]}: {error}")
