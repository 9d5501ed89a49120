"""Sockets that are opened once."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from engine.core.errors import ConfigError, Origin
from engine.settings.model import ListenerSettings
from engine.supervisor.listeners import Listeners, Place, listener_place


class Opener:
    """Opens a socket on any port and counts; refuses one address."""

    def __init__(self) -> None:
        self.opened: list[socket.socket] = []

    def __call__(self, place: Place) -> socket.socket:
        if place.address == "203.0.113.77":
            raise ConfigError(Origin("203.0.113.77:25", 0), "can't listen")
        self.opened.append(socket.create_server(("127.0.0.1", 0)))
        return self.opened[-1]


ONE, TWO = Place("", "127.0.0.1", 25), Place("", "::1", 25)


def test_a_place_that_stays_keeps_its_socket() -> None:
    opener = Opener()
    listeners = Listeners(opener)
    listeners.add([ONE])
    before = listeners.sockets[ONE.key]
    listeners.add([ONE, TWO])
    listeners.keep([ONE.key])
    assert listeners.sockets == {ONE.key: before}
    assert opener.opened[1].fileno() == -1
    listeners.close()
    assert before.fileno() == -1


def test_all_or_nothing_is_opened() -> None:
    opener = Opener()
    listeners = Listeners(opener)
    with pytest.raises(ConfigError):
        listeners.add([ONE, Place("", "203.0.113.77", 25)])
    assert listeners.sockets == {}
    assert opener.opened[0].fileno() == -1


def test_a_renamed_listener_or_one_with_another_protocol_is_the_same_place() -> None:
    one = ListenerSettings(name="a", protocol="smtp", address="127.0.0.1", port=25)
    two = ListenerSettings(name="b", protocol="submission", address="127.0.0.1", port=25)
    assert listener_place(one) == ONE._replace(mode=one.mode)
    assert [place.key for each in (one, two) if (place := listener_place(each))] == ["tcp:127.0.0.1:25"] * 2
    assert TWO.key == "tcp:[::1]:25"


def test_a_spool_has_no_socket() -> None:
    assert listener_place(ListenerSettings(name="s", protocol="spool", path="/spool")) is None


def test_the_path_of_a_unix_socket_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    listeners = Listeners()
    listeners.add([Place(str(path), "", 0, 0o660)])
    assert path.stat().st_mode & 0o777 == 0o660
    listeners.close()
    assert not path.exists()
