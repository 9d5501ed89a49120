"""directories: what can't be made is named by the key that asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.errors import ConfigError
from engine.loading import Texts
from engine.settings.parse import parse_settings
from engine.supervisor.directories import make_directories

SETTINGS = """\
[engine]
hostname = "mta.example"
data_dir = "/var/lib/mailrail"
event_log_dir = "{events}"
[[listener]]
protocol = "spool"
path = "{spool}"
trusted = true
"""


def make(events: Path | str, spool: Path | str) -> None:
    text = SETTINGS.format(events=events, spool=spool)
    make_directories(Texts("m.toml", text, [], {}), parse_settings("m.toml", text))


def test_what_is_missing_is_made(tmp_path: Path) -> None:
    for _ in range(2):
        make(tmp_path / "a" / "events", tmp_path / "spool")
    assert (tmp_path / "a" / "events").is_dir()
    assert (tmp_path / "spool" / "new").is_dir()


@pytest.mark.parametrize("is_file", [True, False])
def test_a_spool_that_can_not_be_made_is_named_by_file_line_and_key(tmp_path: Path, is_file: bool) -> None:
    spool = tmp_path / "spool" if is_file else Path("/proc/spool")
    if is_file:
        spool.write_text("a file")
    with pytest.raises(ConfigError) as caught:
        make(tmp_path / "events", spool)
    where = f"m.toml:7: [[listener]] number 1: key path: spool: {spool}"
    assert str(caught.value).startswith(where)


@pytest.mark.parametrize("is_file", [True, False])
def test_an_event_log_that_can_not_be_made_is_named_by_file_line_and_key(
    tmp_path: Path, is_file: bool
) -> None:
    events = tmp_path / "events" if is_file else Path("/proc/events")
    if is_file:
        events.write_text("a file")
    with pytest.raises(ConfigError) as caught:
        make(events, tmp_path / "spool")
    assert str(caught.value).startswith(f"m.toml:4: [engine]: key event_log_dir: {events}: ")
