"""docs/admin.md has every path of the API and every field of its answers, as a running engine gives them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import Mock

import pytest

from engine.admin.server import AdminServer
from tests.docs.pages import read_names, read_page, read_rows, section
from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import inject
from tests.e2e.sink_process import SinkProcess

PAGE = read_page("admin")


def test_every_path_of_the_api_has_a_row_and_no_other() -> None:
    routes = AdminServer(Mock())._make_application().router.routes()
    served = {f"{route.method} {route.resource.canonical}" for route in routes if route.method != "HEAD"}
    head = PAGE.partition("## status")[0]
    assert set(read_names(head)) == served


@pytest.fixture
def deferring_engine(
    configuration: Configuration, sink: SinkProcess, run_engine: Callable[..., EngineProcess]
) -> EngineProcess:
    """An engine with one delivered message and one that waits."""
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    sink.start([{"at": "rcpt", "domain": "later.example", "reply": "450 4.2.1 try later"}])
    engine = run_engine()
    inject(port, "news@acme.example", ["a@one.example", "b@later.example"])
    wait_until(lambda: engine.events_of("deferred"), 15.0, "a deferral")
    return engine


@pytest.mark.e2e
@pytest.mark.slow
def test_answers_of_a_running_engine_have_the_fields_of_the_page(deferring_engine: EngineProcess) -> None:
    ask = deferring_engine.get
    status = ask("/status")
    text, _, counts = section(PAGE, "## status").partition("`counts`:")
    assert_fields(status, read_names(text))
    assert_fields(status["counts"], read_names(counts))
    for what in ("listeners", "shards"):
        listed = re.search(
            rf"^A row of `{what}`:(.*?)\n\n", section(PAGE, "## status"), re.MULTILINE | re.DOTALL
        )
        assert listed is not None
        assert_fields(status[what][0], re.findall(r"`(\w+)`", listed[1]))
    for what in ("queues", "paths", "messages"):
        answer = ask(f"/{what}")
        assert_fields(answer, [what, "is_whole"])
        assert_fields(answer[what][0], read_names(section(PAGE, f"## {what}")))
    message = ask(f"/messages/{ask('/messages')['messages'][0]['id']}")
    assert_fields(message, read_names(section(PAGE, "## one message")))
    assert_fields({**message["deliveries"][0], "shard": 0}, read_names(section(PAGE, "## messages")))


@pytest.mark.e2e
@pytest.mark.slow
def test_explanation_of_a_running_engine_has_the_fields_of_the_page(deferring_engine: EngineProcess) -> None:
    answer = deferring_engine.get("/explain?domain=later.example&vmta=acme-1")
    rows = {row[0].strip("`"): row[1] for row in read_rows(section(PAGE, "## explain"))}
    assert_fields(answer, rows)
    assert_fields({**answer["paths"][0], "shard": 0}, read_names(section(PAGE, "## paths")))
    key = answer["keys"][0]
    assert_fields({**key, **key["in_force"]}, set(re.findall(r"`(\w+)`", rows["keys"])))
    assert_fields(answer["ceilings"][0], re.findall(r"`(\w+)`", rows["ceilings"]))


def assert_fields(answer: dict[str, Any], names: Iterable[str]) -> None:
    assert sorted(answer) == sorted(names)
