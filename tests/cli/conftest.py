"""A scripted admin API on a unix socket, and the configuration that names it."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SETTINGS = """
[engine]
hostname = "mta.example.net"
data_dir = "{root}/data"

[[listener]]
protocol = "smtp"
listen = "127.0.0.1:{port}"
customer = "acme"

[admin]
listen = "{root}/admin.sock"

[[vmta]]
name = "acme-1"
source = "127.0.0.11"
hostname = "mail1.acme.example"
max_connections = 3

[[pool]]
name = "acme"
members = {{ "acme-1" = 1 }}

[[customer]]
name = "acme"
pool = "acme"
senders = ["*@acme.example"]
"""


class FakeAdmin:
    """Answers by path with what the test put there, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []

    def answer(self, path: str, body: Any, status: int = 200) -> None:
        """Answer this path (without its query) from now on; a list is answered item by item."""
        self.answers[path] = (status, body)

    def find(self, path: str) -> tuple[int, Any]:
        status, body = self.answers.get(path, (404, {"error": f"nothing at {path}"}))
        if isinstance(body, list):
            return status, body.pop(0) if len(body) > 1 else body[0]
        return status, body


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    admin: FakeAdmin


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's signature
        pass

    def do_GET(self) -> None:
        self._reply("GET", None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        self._reply("POST", json.loads(body))

    def _reply(self, method: str, body: Any) -> None:
        admin = self.server.admin
        admin.asked.append((method, self.path, body))
        status, answer = admin.find(self.path.partition("?")[0])
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Return a configuration file whose engine does not run."""
    path = tmp_path / "mailrail.toml"
    path.write_text(SETTINGS.format(root=tmp_path, port=21710))
    return str(path)


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[FakeAdmin]:
    """Serve a scripted admin API where `config` says."""
    fake = FakeAdmin()
    with _Server(str(tmp_path / "admin.sock"), _Handler) as server:
        server.admin = fake
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()
