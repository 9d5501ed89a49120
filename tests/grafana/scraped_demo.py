"""A run of `mailrail demo`, whose engine Prometheus scrapes; and Prometheus.

Owns: both processes' start and end, and how they are asked.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.rig.control import ask_sink
from engine.rig.processes import read_tree
from tests.e2e.configuration import free_port
from tests.e2e.engine_process import ask, command_line, wait_until

SCRAPE_S = 0.5
START_S = 30.0
STOP_S = 40.0


class DemoRun:
    """`mailrail demo --keep`, looked up from outside while it runs."""

    def __init__(self, root: Path, messages: int) -> None:
        """`root`: where its output goes; its own directory it chooses by itself."""
        self._output = root / "demo.log"
        self._messages = messages
        self._child: subprocess.Popen[bytes] | None = None
        self._engine_pid = 0
        self.config: Path | None = None

    def start(self) -> DemoRun:
        """Start it, and wait until all shards of its engine are up."""
        command = [sys.executable, "-m", "engine", "demo", "--keep", "--messages", str(self._messages)]
        with self._output.open("wb") as output:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
            )
        wait_until(self._is_up, START_S, "the demo's engine is up")
        return self

    def close(self) -> None:
        """End it as Ctrl-C does."""
        if self._child is None:
            return
        self._child.send_signal(signal.SIGINT)
        try:
            self._child.wait(STOP_S)
        finally:
            self._child.kill()
            self._child.wait()
            if self.config is not None:  # so short a run binds no limit: it keeps its files
                shutil.rmtree(self.root, ignore_errors=True)

    @property
    def root(self) -> Path:
        """The directory that the demo made for itself, which goes with it: so make sure that it is one."""
        assert self.config is not None, "start comes first"
        root = self.config.parent
        assert root.is_absolute(), root
        assert root.name.startswith("mailrail-demo-"), root
        return root

    @property
    def admin_port(self) -> int:
        return int(self._settings["admin"]["listen"].rpartition(":")[2])

    @property
    def smtp_ports(self) -> dict[str, int]:
        """Ports of the customers that feed by SMTP."""
        listeners = self._settings["listener"]
        return {
            row["customer"]: int(row["listen"].rpartition(":")[2])
            for row in listeners
            if row["protocol"] == "smtp"
        }

    def shard_pids(self) -> list[int]:
        return [pid for pid in read_tree(self._engine_pid)[1:] if "_shard" in command_line(pid)]

    def sink_address(self, domain: str) -> str:
        """Return where the demo routes that domain."""
        return str(self._settings["routes"][domain])

    def use_rules(self, sink: str, rules: list[dict[str, Any]]) -> None:
        """Have the sink of a destination answer by these rules."""
        ask_sink(self.root / f"sink-{sink}.sock", {"do": "script", "rules": rules})

    def change(self, *, routes: str = "", policies: str = "") -> str:
        """Add lines to the routes and to the policies, and reload; return why that was refused."""
        for file, text in (("mailrail.toml", routes), ("policies/demo.toml", policies)):
            with (self.root / file).open("a") as lines:
                lines.write(text)
        answer = _ask(self.admin_port, "POST", "/reload", "{}")
        return str(answer.get("error", ""))

    @property
    def _settings(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "mailrail.toml").read_text())

    def _is_up(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, self._output.read_text()
        for pid in read_tree(self._child.pid):
            words = command_line(pid)
            if "serve" in words:
                self._engine_pid = pid
                self.config = Path(words[words.index("-c") + 1])
        if self.config is None or not self.config.exists():
            return False
        with contextlib.suppress(OSError, http.client.HTTPException):
            shards = _ask(self.admin_port, "GET", "/status", None).get("shards", ())
            return bool(shards) and all(shard["is_up"] for shard in shards)
        return False


class Prometheus:
    """Debian's Prometheus, scraping one engine into a throw-away directory."""

    def __init__(self, program: str, root: Path, target_port: int) -> None:
        self.port = free_port()
        self._root = root
        self._child: subprocess.Popen[bytes] | None = None
        config = root / "prometheus.yml"
        config.write_text(
            json.dumps(  # JSON is YAML
                {
                    "global": {"scrape_interval": f"{int(SCRAPE_S * 1000)}ms"},
                    "scrape_configs": [
                        {
                            "job_name": "mailrail",
                            "static_configs": [{"targets": [f"127.0.0.1:{target_port}"]}],
                        }
                    ],
                }
            )
        )
        self._command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={root / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def start(self) -> Prometheus:
        with (self._root / "prometheus.log").open("wb") as log:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        wait_until(self._is_scraping, 30.0, "Prometheus scrapes the engine")
        return self

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query.

        Raises:
            AssertionError: Prometheus refuses it.
        """
        answer = _ask(self.port, "GET", f"/api/v1/query?query={quote(expression)}", None)
        assert answer["status"] == "success", f"{expression}: {answer}"
        return list(answer["data"]["result"])

    def _is_scraping(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, (self._root / "prometheus.log").read_text()
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            return any(row["value"][1] == "1" for row in self.query("up"))
        return False


def _ask(port: int, method: str, path: str, body: str | None) -> Any:
    return ask(http.client.HTTPConnection("127.0.0.1", port, timeout=30), method, path, body)
