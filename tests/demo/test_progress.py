from __future__ import annotations

import io

from rich.console import Console

from engine.demo.progress import CustomerMoment, DestinationMoment, Moment, Progress, format_line, render

MOMENT = Moment(
    12.0,
    413.4,
    9_000,
    [CustomerMoment("acme", "smtp", 3_000, 1_500, 6_667)],
    [DestinationMoment("bigmail", "10/s messages", 24, 48, 118.2, 120.0, 1_200)],
    {"message rate spent": 10, "max_connections 2 reached": 12},
)


def test_line_says_how_far_it_is() -> None:
    assert format_line(MOMENT) == (" 12.0 s  handed over 3,000  arrived 1,500 of 6,667  413/s  24 sessions")


def test_view_shows_customers_destinations_and_why_paths_wait() -> None:
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        console.print(render(MOMENT))
    text = capture.get()
    for part in ("413/s", "acme", "1,500 of 6,667", "bigmail", "24 of 48", "12 paths: max_connections 2"):
        assert part in text


def test_without_a_terminal_a_line_comes_every_five_seconds() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=120)) as progress:
        for elapsed_s in (0.2, 2.0, 4.9, 5.3, 6.0):
            progress.show(MOMENT._replace(elapsed_s=elapsed_s))
    assert len(out.getvalue().splitlines()) == 2


def test_on_a_terminal_the_view_is_live_and_leaves_nothing() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=120, height=40, force_terminal=True)) as progress:
        progress.show(MOMENT)
    assert "max_connections" in out.getvalue()
