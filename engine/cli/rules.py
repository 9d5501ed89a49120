"""`mailrail rules`: rules for replies, what they have in force, and its end.

Owns: the tables of both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console

from engine.cli.api import AdminApi
from engine.cli.configuration import admin_addresses, load_settings
from engine.cli.look import show_unanswered
from engine.cli.options import common_options, tell
from engine.cli.tables import make_console, make_table

_RULES = ("rule", "does", "when", "matched", "fired", "section", "where")
_IN_FORCE = (
    "key",
    "does",
    "strength",
    "since_at",
    "until_at",
    "count",
    "connections",
    "rate",
    "reply",
    "where",
)


@click.command()
@click.argument("domain", default="")
@click.option("--vmta", default="", metavar="NAME", help="Only what reaches this vmta.")
@click.option("--cancel", "key", default="", metavar="KEY", help="End what is in force under this key.")
@common_options
def rules(config: str, as_json: bool, domain: str, vmta: str, key: str) -> None:
    """Show what rules for replies have in force; for DOMAIN, also which rules there are, in their order.

    Exits 1 where nothing is in force under the KEY to be cancelled.

    \b
    Examples:
      mailrail rules
      mailrail rules gmail.com --vmta acme-1
      mailrail rules --cancel gmail-unusual-rate@acme-1/gmail
    """
    api = AdminApi(*admin_addresses(load_settings(config)))
    if key:
        if domain or vmta:
            raise click.UsageError("--cancel takes the key alone")
        answer = api.post("/rules/cancel", {"key": key})
        tell(as_json, answer, lambda: click.echo(f"cancelled: {key}"))
        return
    answer = api.get("/rules", {"domain": domain, "vmta": vmta})
    tell(as_json, answer, lambda: show_rules(make_console(), answer, time.time()))


def show_rules(console: Console, answer: Mapping[str, Any], now: float) -> None:
    """Print rules for replies, and what is in force."""
    if rules := answer["rules"]:
        console.print(make_table(rules, _RULES, now))
        console.print()
    reactions = [{name: row[name] for name in _IN_FORCE if row.get(name)} for row in answer["reactions"]]
    if reactions:
        console.print(make_table(reactions, _IN_FORCE, now))
    else:
        console.print("nothing is in force")
    show_unanswered(console, answer)
