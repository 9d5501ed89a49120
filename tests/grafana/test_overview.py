"""The dashboard shows what the engine counts: each query of each panel has data, says a real Prometheus."""

from __future__ import annotations

import json
import math
import re
import smtplib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.telemetry.catalog import METRICS
from tests.e2e.engine_process import kill_process, wait_until
from tests.e2e.feeding import addresses, make_message
from tests.grafana.scraped_demo import DemoRun, Prometheus

DASHBOARD = json.loads((Path(__file__).parents[2] / "grafana" / "overview.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
COLUMNS = 24  # of Grafana's grid
MESSAGES = 6000  # of the demo: enough for some 15 s at its limits

WINDOW = "10s"  # what Grafana would put for $__rate_interval, at this test's pace


def fill_in(expression: str) -> str:
    """Return the query as Grafana sends it when every customer and destination is chosen."""
    for name, value in (("$__rate_interval", WINDOW), ("$customer", ".*"), ("$destination", ".*")):
        expression = expression.replace(name, value)
    return expression.removesuffix(" or vector(0)")  # which would be data where there is none


def queries() -> Iterator[tuple[str, str]]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


# -- the file ---------------------------------------------------------------------------------------


def test_every_metric_of_a_query_is_one_of_the_catalog() -> None:
    for title, expression in queries():
        for name in re.findall(r"mailrail_\w+", expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            known = METRICS.get(name) or METRICS.get(base)
            assert known is not None, f"{title}: {name}"
            assert (name != base) <= (known.kind == "histogram"), f"{title}: {name}"


def test_labels_of_a_query_are_those_of_its_metric() -> None:
    for title, expression in queries():
        for name, selector in re.findall(r"(mailrail_\w+)\{([^}]*)\}", expression):
            metric = METRICS[re.sub(r"_bucket$", "", name) if name not in METRICS else name]
            used = re.findall(r"(\w+)=", selector)
            assert set(used) <= set(metric.labels), f"{title}: {name}{{{selector}}}"


def test_panels_have_a_title_a_number_and_room_of_their_own() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert panel["title"]
        assert at["x"] + at["w"] <= COLUMNS
        covered = {
            (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
        }
        assert not covered & cells, panel["title"]
        cells |= covered


def test_every_panel_asks_the_data_source_that_is_chosen_above() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in PANELS:
        for holder in (panel, *panel["targets"]):
            assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    used = set(re.findall(r"\$(\w+)", " ".join(expression for _, expression in queries())))
    assert used - {"__rate_interval"} == set(variables) - {"datasource"}


# -- with a real Prometheus ------------------------------------------------------------------------


@pytest.fixture
def prometheus(stranger: Callable[[str], str], root: Path) -> Iterator[Callable[[int], Prometheus]]:
    made: list[Prometheus] = []
    program = stranger("prometheus")

    def start(target_port: int) -> Prometheus:
        made.append(Prometheus(program, root, target_port).start())
        return made[0]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def demo(root: Path) -> Iterator[DemoRun]:
    run = DemoRun(root, MESSAGES)
    yield run
    run.close()


class Load(threading.Thread):
    """Mail, now and then something that is refused, until told to stop."""

    def __init__(self, ports: dict[str, int]) -> None:
        super().__init__()
        self._ports = ports
        self.is_over = threading.Event()

    def run(self) -> None:
        rcpts = addresses(20, "later.example", "no.example", "down.example", "campus.example")
        while not self.is_over.wait(0.1):
            for customer, port in self._ports.items():
                try:
                    self._send(customer, port, rcpts)
                except (OSError, smtplib.SMTPException):
                    continue  # a shard was killed under us

    def _send(self, customer: str, port: int, rcpts: list[str]) -> None:
        sender = f"news@{customer}.example"
        with smtplib.SMTP("127.0.0.1", port, "feeder.example", timeout=10) as session:
            for number, rcpt in enumerate(rcpts):
                session.sendmail(sender, [rcpt], make_message(sender, rcpt, f"g-{customer}-{number}"))
            session.ehlo()
            session.mail("stranger@elsewhere.example")


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.stranger("prometheus")
def test_every_query_of_every_panel_returns_data(
    prometheus: Callable[[int], Prometheus], demo: DemoRun
) -> None:
    """While the demo runs. What never happens in it, because nothing fails, is brought in from outside."""
    demo.start()
    server = prometheus(demo.admin_port)
    disturb(demo)
    load = Load(demo.smtp_ports)
    load.start()
    remaining = list(queries())
    try:
        wait_until(lambda: server.query('mailrail_messages_total{event="bounced"}'), 30.0, "bounces")
        kill_process(min(demo.shard_pids()))
        refusal = demo.change(policies="max_conections = 1\n")
        assert "did you mean 'max_connections'?" in refusal
        wait_until(lambda: not keep_without_data(server, remaining), 60.0, f"data for {remaining}")
    except AssertionError:
        raise AssertionError(f"no data for {remaining}") from None
    finally:
        load.is_over.set()
        load.join()
    for variable in DASHBOARD["templating"]["list"]:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
        if found is not None:
            assert server.query(f"count by ({found[2]}) ({found[1]})")


def disturb(demo: DemoRun) -> None:
    """Bring in domains of which one defers, one refuses and one can't be reached."""
    demo.use_rules(
        "freemail.example",
        [
            {"at": "rcpt", "domain": "later.example", "reply": "450 4.2.1 try later"},
            {"at": "rcpt", "domain": "no.example", "reply": "550 5.1.1 no such user"},
        ],
    )
    sink = demo.sink_address("freemail.example")
    routes = dict.fromkeys(("later.example", "no.example", "acme.example", "globex.example"), sink)
    routes["down.example"] = f"{sink.rpartition(':')[0]}:1"
    lines = "".join(f'"{domain}" = "{address}"\n' for domain, address in routes.items())
    assert demo.change(routes=lines, policies='[default]\nretry = ["1s"]\n') == ""


def keep_without_data(server: Prometheus, remaining: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop from `remaining` what has a number now; return it."""
    remaining[:] = [
        (title, expression)
        for title, expression in remaining
        if not any(is_number(row) for row in server.query(fill_in(expression)))
    ]
    return remaining


def is_number(row: dict[str, Any]) -> bool:
    return not math.isnan(float(row["value"][1]))
