"""A small scenario, and runs of it in which everything went right until a test spoils something."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.core.units import Rate
from engine.demo.account import Account, Line
from engine.demo.scenario import Customer, Destination, Scenario, VirtualMTA

SOURCE = "127.0.1.1"
OTHER_SOURCE = "127.0.1.2"
NAMES = {SOURCE: "mail1.acme.example", OTHER_SOURCE: "mail1.globex.example"}
FAST, SLOW = "127.0.2.1", "127.0.2.2"  # where each destination listens
PACE_S = 0.102  # 10/s and a guard
MESSAGES = 400


class GoodRun:
    """What the sinks log, and the feeds record, of a run in which everything is right.

    Each of two vmtas sends 100 messages at a pace of 10/s to `fast.example`, and 100 to `slow.example`
    over two connections that stay open. All were handed over at time 0.
    """

    def __init__(self) -> None:
        self.scenario = Scenario(
            [_customer("acme", SOURCE), _customer("globex", OTHER_SOURCE)],
            [
                Destination("fast.example", False, {"fast.example": FAST}, 2, Rate(10, 1.0), 0.0),
                Destination("slow.example", False, {"slow.example": SLOW}, 2, None, 0.2),
            ],
            MESSAGES,
        )
        self.shards = {SOURCE: 0, OTHER_SOURCE: 1}
        self.handed_over: dict[tuple[str, str], float] = {}
        self.lines: list[Line] = []
        for customer, source in (("acme", SOURCE), ("globex", OTHER_SOURCE)):
            self._send(customer, source, FAST, "fast.example", PACE_S)
            self._send(customer, source, SLOW, "slow.example", 0.1)

    def _send(self, customer: str, source: str, listen: str, domain: str, pace_s: float) -> None:
        self.lines += [Line(0.5, "open", listen, source) for _ in range(2)]
        for number in range(100):
            self.add(customer, source, listen, domain, 0.6 + number * pace_s, number)
        self.lines += [Line(0.7 + 100 * pace_s, "close", listen, source) for _ in range(2)]

    def add(self, customer: str, source: str, listen: str, domain: str, at: float, number: int) -> Line:
        """Let one message be handed over and arrive."""
        rcpt = f"u{number}@{domain}"
        name = f"{customer}-{domain}-{number}"
        line = Line(at, "message", listen, source, NAMES[source], [rcpt], name, True)
        self.lines.append(line)
        self.handed_over[name, rcpt] = 0.0
        return line

    def find(self, source: str, listen: str, position: int) -> int:
        """Return where a message of a path stands in `lines`."""
        found = [
            index
            for index, line in enumerate(self.lines)
            if (line.kind, line.source, line.listen) == ("message", source, listen)
        ]
        return found[position]

    def account(self) -> Account:
        """Return what the sinks saw, line by line in the order of time."""
        account = Account(self.scenario)
        for line in sorted(self.lines, key=lambda line: line.t):
            account.add(line)
        return account


def _customer(name: str, source: str) -> Customer:
    return Customer(
        name, "smtp", f"news@{name}.example", ("s",), (VirtualMTA(f"{name}-1", source, NAMES[source]),)
    )


@pytest.fixture
def run() -> GoodRun:
    return GoodRun()


@pytest.fixture
def spoil(run: GoodRun) -> Callable[..., None]:
    """Return a function that changes fields of one message of the fast path."""
    import msgspec

    def change(position: int, source: str = SOURCE, listen: str = FAST, **fields: object) -> None:
        index = run.find(source, listen, position)
        run.lines[index] = msgspec.structs.replace(run.lines[index], **fields)

    return change
