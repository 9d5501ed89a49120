"""Directories that the configuration names, made before any shard is asked to use them.

A shard that can't use its spool or its event log can't start; here the key that names the directory is
known, and the start or the reload is refused before anything has changed.

Owns: which keys name directories that must be writable.
Never: opens a file in one.
Fails: ConfigError at the line of the key.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.core.document import Document, KeyPath
from engine.core.errors import ConfigError
from engine.core.fields import describe
from engine.inject.spool_directory import SpoolDirectory
from engine.loading import Texts
from engine.settings.model import Settings

EVENT_LOG_MODE = 0o750  # as the event log makes it


def make_directories(texts: Texts, settings: Settings) -> None:
    """Make the directories of the spools and of the event log where they are missing, and try them."""
    document = Document(texts.config_path, texts.settings)
    _make_event_log(document, settings.engine.event_log_dir)
    for index, row in enumerate(settings.listeners):
        if row.protocol == "spool":
            _make_spool(document, ("listener", index, "path"), row.path)


def _make_event_log(document: Document, path: str) -> None:
    key: KeyPath = ("engine", "event_log_dir")
    try:
        Path(path).mkdir(mode=EVENT_LOG_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(document, key, f"{error.filename or path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        raise _refusal(document, key, f"{path}: not writable")


def _make_spool(document: Document, key: KeyPath, path: str) -> None:
    """Do what the first shard will do."""
    directory = SpoolDirectory(Path(path), 0)
    try:
        directory.open()
    except ConfigError as error:
        raise _refusal(document, key, error.detail) from error
    finally:
        directory.close()
    for name in ("new", "failed", "claimed"):
        if not os.access(f"{path}/{name}", os.W_OK | os.X_OK, effective_ids=True):
            raise _refusal(document, key, f"spool: {path}/{name}: not writable")


def _refusal(document: Document, key: KeyPath, detail: str) -> ConfigError:
    return ConfigError(document.origin(key), f"{describe(key[:-1])}: key {key[-1]}: {detail}")
