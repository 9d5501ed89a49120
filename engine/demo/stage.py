"""Everything that a run of the demo starts: sinks, the engine, feeds; asked, and ended again.

Each destination has a sink process of its own, each customer a feed of its own. All of them end with this
process, however it ends, and none hears the terminal's Ctrl-C.

Owns: the throw-away directory, ports, processes, the files that they write.
Never: judges.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.control.lifetime import end_with_parent
from engine.demo.account import Account, Line
from engine.demo.configuration import Places, format_policies, format_settings
from engine.demo.logfile import LogFile
from engine.demo.plan import deal_messages
from engine.demo.scenario import Customer, Destination, Scenario
from engine.rig.job import write_plan
from engine.rig.processes import RigProcess, wait_port
from engine.supervisor.assignments import load_assignment

SERVE_TIMEOUT_S = 30.0  # from the start to the first greeting
ANSWER_TIMEOUT_S = 5.0  # of the admin API
FEED_PER_S = 1250.0  # all customers together: three times what the limits let go
PORTS = range(2600, 2700)  # the first that is free on every address of the sinks
SMTP_SESSIONS = 10  # of each feed by SMTP
LOOPBACK = "127.0.0.1"


class StageError(Exception):
    """Something of the demo did not start; the text says what."""


class Stage:
    """The processes of one run."""

    def __init__(self, scenario: Scenario, places: Places) -> None:
        self.scenario = scenario
        self.places = places
        self._sinks: list[RigProcess] = []
        self._feeds: dict[str, RigProcess] = {}
        self._engine: RigProcess | None = None
        self._logs: dict[str, LogFile] = {}
        self.is_kept = False  # the directory stays, to be looked at

    # -- opening ------------------------------------------------------------------------------------

    def open_sinks(self) -> None:
        """Start a sink for each destination and wait until all of them listen."""
        for destination in self.scenario.destinations:
            self._sinks.append(self._start_sink(destination))
        for sink in self._sinks:
            if "ready" not in sink.read_line():
                raise StageError(f"a sink did not start: {' '.join(sink.arguments)}")

    def _start_sink(self, destination: Destination) -> RigProcess:
        root, name = self.places.root, destination.name
        log = root / f"sink-{name}.jsonl"
        self._logs[name] = LogFile(log)
        options = ["--control", f"{root}/sink-{name}.sock", "--log", str(log), "--hostname", f"mx.{name}"]
        options += ["--report", f"{root}/sink-{name}.json", "--delay-at", f"final={destination.latency_s}"]
        for address in destination.hosts.values():
            options += ["--listen", f"{address}:{self.places.sink_port}"]
        return _start("engine.rig.sink", *options, stdout=subprocess.PIPE, text=True)

    def open_engine(self) -> None:
        """Write the configuration, start the engine and wait until it greets."""
        places = self.places
        places.policies.mkdir()
        places.config.write_text(format_settings(self.scenario, places))
        (places.policies / "demo.toml").write_text(format_policies(self.scenario))
        with self.engine_log.open("wb") as log:
            self._engine = _start("engine", "serve", "-c", str(places.config), stderr=log)
        try:
            for port in places.smtp_ports.values():
                wait_port(LOOPBACK, port, SERVE_TIMEOUT_S)
        except TimeoutError as error:
            raise StageError(f"the engine did not start: {error}; its log:\n{self.read_log()}") from None

    def open_feeds(self) -> None:
        """Start a feed for each customer, all at once."""
        for customer in self.scenario.customers:
            plan = deal_messages(self.scenario, customer)
            write_plan(self._plan(customer), plan)
            self._logs[customer.name] = LogFile(self._record(customer))
            rate = FEED_PER_S * len(plan) / self.scenario.messages
            self._feeds[customer.name] = self._start_feed(customer, rate)

    def _start_feed(self, customer: Customer, rate_per_s: float) -> RigProcess:
        places = self.places
        options = ["--plan", str(self._plan(customer)), "--accepted", str(self._record(customer))]
        options += ["--rate", f"{rate_per_s:.3f}"]
        with (places.root / f"feed-{customer.name}.log").open("wb") as log:
            if customer.feed == "smtp":
                address = f"{LOOPBACK}:{places.smtp_ports[customer.name]}"
                options += ["--to", address, "--sessions", str(SMTP_SESSIONS)]
                return _start("engine.rig.source", *options, stdout=log, stderr=log)
            to = places.socket(customer) if customer.feed == "socket" else places.spool(customer)
            return _start("engine.demo.feeding", customer.feed, "--to", str(to), *options, stderr=log)

    # -- asking -------------------------------------------------------------------------------------

    def read_arrivals(self, account: Account) -> None:
        """Bring the account up to date with the sinks' logs."""
        for destination in self.scenario.destinations:
            for line in self._logs[destination.name].read(_decode_line):
                account.add(line)

    def read_handed_over(self, known: dict[tuple[str, str], float]) -> None:
        """Bring up to date what the feeds have on record, and when."""
        for customer in self.scenario.customers:
            if customer.name in self._logs:
                for record in self._logs[customer.name].read(_decode_record):
                    known.update(((record.id, recipient), record.t) for recipient in record.rcpt)

    def read_shards(self) -> dict[str, int]:
        """Return which shard owns each source address."""
        owners = load_assignment(self.places.data / "assignment.json").vmtas
        return {
            source: owners[vmta.name] for source, vmta in self.scenario.vmta_at.items() if vmta.name in owners
        }

    def ask(self, path: str) -> dict[str, Any]:
        """Ask the engine's admin API; an empty answer where it gives none."""
        link = http.client.HTTPConnection(LOOPBACK, self.places.admin_port, timeout=ANSWER_TIMEOUT_S)
        with contextlib.closing(link), contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            link.request("GET", path)
            answer = msgspec.json.decode(link.getresponse().read())
            return answer if isinstance(answer, dict) else {}
        return {}

    def find_failures(self) -> list[str]:
        """Return which processes have ended that should run, or failed."""
        failures = [f"a feed failed: {name}" for name, feed in self._feeds.items() if feed.status]
        if self._engine is not None and not self._engine.is_alive():
            failures.append(f"the engine ended; its log:\n{self.read_log()}")
        failures += [f"a sink ended: {' '.join(s.arguments)}" for s in self._sinks if not s.is_alive()]
        return failures

    @property
    def is_feeding(self) -> bool:
        return any(feed.is_alive() for feed in self._feeds.values())

    @property
    def engine_log(self) -> Path:
        return self.places.root / "engine.log"

    def read_log(self) -> str:
        """Return the end of the engine's log."""
        return self.engine_log.read_text(errors="replace")[-3000:]

    # -- ending -------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the feeds, the engine gracefully, then the sinks, which saw it all."""
        for feed in self._feeds.values():
            feed.stop()
        if self._engine is not None:
            self._engine.stop()
        for sink in self._sinks:
            sink.stop()

    def _plan(self, customer: Customer) -> Path:
        return self.places.root / f"plan-{customer.name}.jsonl"

    def _record(self, customer: Customer) -> Path:
        return self.places.root / f"accepted-{customer.name}.jsonl"


class _Record(msgspec.Struct):
    """One line of what a feed has on record."""

    id: str
    rcpt: list[str]
    t: float


_decode_line = msgspec.json.Decoder(Line).decode
_decode_record = msgspec.json.Decoder(_Record).decode


@contextlib.contextmanager
def on_stage(scenario: Scenario) -> Iterator[Stage]:
    """Give a stage for the length of a with block; all that it started has ended afterwards."""
    root = Path(tempfile.mkdtemp(prefix="mailrail-demo-", dir="/var/tmp"))  # a disk, not memory
    stage = Stage(scenario, find_places(scenario, root))
    try:
        yield stage
    finally:
        stage.close()
        if not stage.is_kept:
            shutil.rmtree(root, ignore_errors=True)


def find_places(scenario: Scenario, root: Path) -> Places:
    """Choose ports that are free."""
    hosts = [host for each in scenario.destinations for host in each.hosts.values()]
    names = [customer.name for customer in scenario.customers if customer.feed == "smtp"]
    with contextlib.ExitStack() as stack:
        free = [_bind(stack, LOOPBACK, 0) for _ in range(len(names) + 1)]
        return Places(root, _find_sink_port(hosts), free[0], dict(zip(names, free[1:], strict=True)))


def _find_sink_port(hosts: list[str]) -> int:
    for port in PORTS:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for host in hosts:
                _bind(stack, host, port)
            return port
    raise StageError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free on {', '.join(hosts)}")


def _bind(stack: contextlib.ExitStack, host: str, port: int) -> int:
    listener = stack.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return int(listener.getsockname()[1])


def _start(module: str, *arguments: str, **options: Any) -> RigProcess:
    """Start a module of ours; it ends when we do, but not by the terminal's Ctrl-C."""
    return RigProcess(
        [sys.executable, "-m", module, *arguments],
        start_new_session=True,
        preexec_fn=end_with_parent,
        stdin=subprocess.DEVNULL,
        **options,
    )
