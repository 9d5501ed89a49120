"""A supervisor in a process of its own, over fake shards."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.cli.api import AdminApi, ApiError
from engine.cli.configuration import AdminAddress

FAKE = Path(__file__).parent.parent / "fakes" / "shard_process.py"
WAIT_S = 20.0  # a bound for a busy machine, not a measure
SERVE = textwrap.dedent(
    """
    import os, sys
    from engine.supervisor import rollout
    from engine.supervisor.serve import serve
    rollout.RELEASE_TIMEOUT_S = float(os.environ["RELEASE_TIMEOUT_S"])
    sys.exit(serve(sys.argv[1], (sys.executable, *sys.argv[2:])))
    """
)


def wait_until(is_true: Callable[[], Any], what: str) -> Any:
    """Poll until something is true; return it."""
    deadline = time.monotonic() + WAIT_S
    while not (found := is_true()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class RunningSupervisor:
    """One `mailrail serve` with fake shards."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        self.config = directory / "mailrail.toml"
        self.log = directory / "log"
        self.port = free_port()
        self.shards = 2
        self.vmtas = {f"v{number}": f"127.0.0.{number + 1}" for number in range(4)}
        self.engine_lines = ""
        self.extra = ""
        self.release_timeout_s = 30.0
        self.environment = {"FAKE_SHARD": json.dumps({"data_dir": str(self.data_dir)})}
        self.process: subprocess.Popen[bytes] | None = None
        self.use_admin(self.data_dir / "admin.sock")

    def use_admin(self, path: Path) -> None:
        """Ask the admin API at this path from now on."""
        self.admin_path = path
        self.api = AdminApi(AdminAddress(str(path), "", 0))

    def write(self) -> None:
        """Write the configuration as the attributes say."""
        vmtas = "".join(
            f'[[vmta]]\nname = "{name}"\nsource = "{source}"\nhostname = "{name}.example"\n'
            for name, source in self.vmtas.items()
        )
        members = ", ".join(f'"{name}" = 1' for name in self.vmtas)
        self.config.write_text(
            f'[engine]\nhostname = "mta.example"\ndata_dir = "{self.data_dir}"\nshards = {self.shards}\n'
            f'grace = "3s"\n{self.engine_lines}\n'
            f'[[listener]]\nname = "in"\nprotocol = "smtp"\ncustomer = "acme"\n'
            f'listen = "127.0.0.1:{self.port}"\n'
            f"{vmtas}"
            f'[[pool]]\nname = "acme"\nmembers = {{ {members} }}\n'
            f'[[customer]]\nname = "acme"\npool = "acme"\nsenders = ["*"]\n{self.extra}\n'
        )

    def start(self, *, is_awaited: bool = True) -> None:
        self.write()
        timeout = {"RELEASE_TIMEOUT_S": str(self.release_timeout_s)}
        environment = {**os.environ, **self.environment, **timeout}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(self.config), str(FAKE)], stderr=log, env=environment
            )
        if is_awaited:
            self.wait_up()

    def wait_up(self) -> dict[str, Any]:
        """Wait until every shard is up; return the status."""
        return wait_until(self.status_if_up, f"all shards are up: {self.log_text()}")

    def wait_restarted(self, shard: int, starts: int) -> None:
        """Wait until every shard is up, and one of them has been started so many times."""

        def is_back() -> bool:
            status = self.status_if_up()
            return bool(status) and status["shards"][shard]["starts"] == starts

        wait_until(is_back, f"shard {shard} is up after {starts} starts")

    def status(self) -> dict[str, Any]:
        try:
            return self.api.get("/status")
        except ApiError:
            return {}

    def status_if_up(self) -> dict[str, Any]:
        status = self.status()
        shards = status.get("shards", ())
        return status if len(shards) == self.shards and all(shard["is_up"] for shard in shards) else {}

    def metrics(self) -> str:
        """Return the page at /metrics."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WAIT_S)
            client.connect(str(self.admin_path))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return client.makefile().read()

    def pids(self) -> list[int]:
        return [shard["pid"] for shard in self.status()["shards"]]

    def order(self, shard: int, **orders: str) -> None:
        """Tell a fake shard how to misbehave."""
        directory = self.data_dir / f"shard-{shard}"
        directory.mkdir(exist_ok=True)
        (directory / "orders.json").write_text(json.dumps(orders))

    def heard(self, shard: int, kind: str = "") -> list[dict[str, Any]]:
        """Return what a fake shard was told: bodies of one kind, or all lines."""
        path = self.data_dir / f"shard-{shard}" / "heard.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line["body"] for line in lines if line["kind"] == kind] if kind else lines

    def greeting(self) -> tuple[int, int]:
        """Connect as a client; return shard and process id that greeted."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as client:
            _, shard, pid = client.makefile().readline().split()
        return int(shard), int(pid)

    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait_exit(self) -> int:
        assert self.process is not None
        return self.process.wait(WAIT_S)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_S)


def wait_dead(pid: int) -> None:
    """Wait until a process is gone or a zombie."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], WAIT_S)[0], f"process {pid} lives"
    finally:
        os.close(descriptor)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[RunningSupervisor]:
    """A supervisor that the test starts; killed in the end."""
    running = RunningSupervisor(tmp_path)
    yield running
    running.kill()


class Notifications:
    """What systemd would be told."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(WAIT_S)
        self.socket.bind(str(path))

    def next(self) -> str:
        return self.socket.recv(4096).decode()


@pytest.fixture
def notifications(tmp_path: Path, supervisor: RunningSupervisor) -> Iterator[Notifications]:
    """The socket that NOTIFY_SOCKET names."""
    path = tmp_path / "notify"
    heard = Notifications(path)
    supervisor.environment["NOTIFY_SOCKET"] = str(path)
    yield heard
    heard.socket.close()


@pytest.fixture
def wait() -> Callable[[Callable[[], Any], str], Any]:
    return wait_until


@pytest.fixture
def wait_process_dead() -> Callable[[int], None]:
    return wait_dead
