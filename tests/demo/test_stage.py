from __future__ import annotations

import socket
from pathlib import Path

from engine.demo.scenario import make_scenario
from engine.demo.stage import PORTS, Stage, find_places

SCENARIO = make_scenario(10)


def test_ports_are_free_and_one_for_each_use(tmp_path: Path) -> None:
    places = find_places(SCENARIO, tmp_path)
    assert places.sink_port in PORTS
    assert set(places.smtp_ports) == {"acme", "globex"}
    assert len({places.admin_port, *places.smtp_ports.values()}) == 3


def test_port_that_one_sink_could_not_have_is_passed_over(tmp_path: Path) -> None:
    first = find_places(SCENARIO, tmp_path).sink_port
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an earlier run may linger
        taken.bind(("127.0.23.1", first))
        taken.listen()
        assert find_places(SCENARIO, tmp_path).sink_port > first


def test_engine_that_does_not_answer_gives_an_empty_answer(tmp_path: Path) -> None:
    stage = Stage(SCENARIO, find_places(SCENARIO, tmp_path))
    assert stage.ask("/status") == {}
    assert stage.read_shards() == {}
    assert stage.find_failures() == []
    stage.close()
