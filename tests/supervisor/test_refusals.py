"""refusals: file, line and key of what was found out elsewhere."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from engine.core.errors import ConfigError, Origin
from engine.loading import Texts
from engine.settings.parse import parse_settings
from engine.supervisor.listeners import Listeners, admin_place, listener_place
from engine.supervisor.refusals import locate_data_dir, locate_place, refuse_change

SETTINGS = """\
[engine]
hostname = "mta.example"
data_dir = "{root}/data"
map_size = "1GiB"
[[listener]]
protocol = "smtp"
listen = "{smtp}"
trusted = true
[[listener]]
protocol = "socket"
path = "{root}/in.sock"
trusted = true
[admin]
listen = "{admin}"
"""


def make(root: Path | str = "/srv", smtp: str = "127.0.0.1:25", admin: str = "127.0.0.1:8025") -> Texts:
    return Texts("m.toml", SETTINGS.format(root=root, smtp=smtp, admin=admin), [], {})


def refusal_of(texts: Texts) -> str:
    """Listen wherever the configuration says; return why that fails."""
    settings = parse_settings("m.toml", texts.settings)
    places = [place for row in settings.listeners if (place := listener_place(row))]
    listeners = Listeners()
    with pytest.raises(ConfigError) as caught:
        listeners.add([*places, admin_place(settings.admin)])
    return str(locate_place(texts, settings, caught.value))


def test_a_port_in_use_is_named_by_file_line_and_key(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        other = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        cause = f"{used}: can't listen there: Address already in use"
        refused = refusal_of(make(tmp_path, smtp=used))
        assert refused == f"m.toml:7: [[listener]] number 1: key listen: {cause}"
        refused = refusal_of(make(tmp_path, smtp=other, admin=used))
        assert refused == f"m.toml:14: [admin]: key listen: {cause}"


def test_a_file_that_is_no_socket_is_named_by_the_key_that_wants_its_place(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        other = f"127.0.0.1:{free.getsockname()[1]}"
    path = tmp_path / "in.sock"
    path.touch()
    cause = f"{path}: there is a file of that name, and it is no socket"
    assert refusal_of(make(tmp_path, smtp=other)) == f"m.toml:11: [[listener]] number 2: key path: {cause}"


def test_the_admin_socket_that_no_line_names_is_named_by_its_key() -> None:
    texts = Texts("m.toml", make().settings.partition("[admin]")[0], [], {})
    error = ConfigError(Origin("/srv/data/admin.sock", 0), "another process listens there")
    located = locate_place(texts, parse_settings("m.toml", texts.settings), error)
    assert str(located) == "m.toml: [admin]: key listen: /srv/data/admin.sock: another process listens there"


def test_a_setting_that_needs_a_restart_is_named_as_it_is_written() -> None:
    old, new = make(), make()
    grown = Texts("m.toml", new.settings.replace("1GiB", "2GiB"), [], {})
    assert str(refuse_change(old, grown, "map_size_bytes")) == (
        "m.toml:4: [engine]: key map_size can't change while the engine runs ('1GiB' to '2GiB'): restart it"
    )
    without = Texts("m.toml", new.settings.replace('map_size = "1GiB"\n', ""), [], {})
    gone = str(refuse_change(old, without, "map_size_bytes"))
    assert gone.startswith("m.toml:1: [engine]: key map_size can't change while")
    assert "('1GiB' to its default)" in gone


def test_a_data_directory_that_can_not_be_used_is_named_at_its_line() -> None:
    error = ConfigError(Origin("/srv/data", 0), "another engine uses it (process 7)")
    located = str(locate_data_dir(make(), error))
    assert located == "m.toml:3: [engine]: key data_dir: /srv/data: another engine uses it (process 7)"
