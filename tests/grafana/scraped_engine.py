"""The engine with its admin API on TCP, where Prometheus can scrape it; and Prometheus.

Owns: both processes' start and end, and how Prometheus is asked.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.e2e.configuration import Configuration, free_port
from tests.e2e.engine_process import EngineProcess, ask, wait_until

SCRAPE_S = 0.5


class ScrapedConfiguration(Configuration):
    """A configuration whose admin API listens on a port of 127.0.0.1."""

    admin_port = 0

    def format(self) -> str:
        self.admin_port = self.admin_port or free_port()
        return f'{super().format()}\n[admin]\nlisten = "127.0.0.1:{self.admin_port}"\n'


class ScrapedEngine(EngineProcess):
    """`mailrail serve`, asked over TCP."""

    def _ask(self, method: str, path: str, body: str | None) -> Any:
        assert isinstance(self.configuration, ScrapedConfiguration)
        return _ask(self.configuration.admin_port, method, path, body)


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
