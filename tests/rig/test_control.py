"""What asking a sink puts on its socket, and what becomes of the answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.rig.control import ask_sink

Answering = Callable[[bytes], tuple[Path, list[bytes]]]


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """Return a function that answers one request with these octets; it tells where, and what was asked."""
    listener = socket.socket(socket.AF_UNIX)
    threads: list[threading.Thread] = []

    def answer(octets: bytes) -> tuple[Path, list[bytes]]:
        asked: list[bytes] = []
        listener.bind(str(tmp_path / "sink.sock"))
        listener.listen()

        def serve() -> None:
            link, _ = listener.accept()
            with link, link.makefile("rb") as lines:
                asked.append(lines.readline())
                link.sendall(octets)

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        return tmp_path / "sink.sock", asked

    yield answer
    for thread in threads:
        thread.join(10)
    listener.close()


def test_a_request_is_one_line_and_so_is_its_answer(answering: Answering) -> None:
    path, asked = answering(b'{"unique": 3}\n')
    assert ask_sink(path, {"do": "report", "windows": [1.0]}) == {"unique": 3}
    assert [json.loads(line) for line in asked] == [{"do": "report", "windows": [1.0]}]


@pytest.mark.parametrize("octets", [b'{"error": "no such thing"}\n', b"[]\n", b"", b'{"uni'])
def test_what_is_no_answer_is_an_error(answering: Answering, octets: bytes) -> None:
    path, _ = answering(octets)
    with pytest.raises(ValueError, match=r"no such thing|sink: \[\]|Expecting value|Unterminated"):
        ask_sink(path, {"do": "count"})


def test_where_no_sink_listens_it_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ask_sink(tmp_path / "sink.sock", {"do": "count"})
