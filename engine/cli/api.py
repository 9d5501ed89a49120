"""Requests to the admin API of a running engine.

Owns: HTTP over a unix socket or TCP, by the standard library: a command that asks one thing starts fast.
Fails: ApiError, whose text says what to do.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from engine.cli.configuration import AdminAddress

ANSWER_TIMEOUT_S = 60.0  # a reload waits for vmtas to close their sessions


class ApiError(Exception):
    """The engine did not answer, or refused; `status` is HTTP's, 0 where nobody answered."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class AdminApi:
    """The admin API at one address; where nobody listens there, at the next."""

    def __init__(
        self, where: AdminAddress, *others: AdminAddress, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        self._where = where
        self._others = others
        self._timeout_s = timeout_s

    def get(self, path: str, criteria: Mapping[str, str | int | None] | None = None) -> dict[str, Any]:
        """Return the answer to a question; criteria that are None or "" are left out."""
        given = {name: str(value) for name, value in (criteria or {}).items() if value not in (None, "")}
        return self._ask("GET", f"{path}?{urlencode(given)}" if given else path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to an order."""
        return self._ask("POST", path, json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        link = _connection(self._where, self._timeout_s)
        try:
            link = self._connect(link)
            link.request(method, path, body, headers)
            answer = link.getresponse()
            return _read(answer.status, answer.read())
        except TimeoutError as error:
            raise ApiError(f"the engine at {self._where} took longer than {self._timeout_s:g} s") from error
        except OSError as error:
            raise ApiError(
                f"no engine answers at {self._where}: {error.strerror or error}. {_advice(error)}"
            ) from error
        except http.client.HTTPException as error:
            raise ApiError(f"{self._where} does not speak HTTP: {error!r}") from error
        finally:
            link.close()

    def _connect(self, link: http.client.HTTPConnection) -> http.client.HTTPConnection:
        """Return the first connection that can be made; where none can, the error is that of the first."""
        try:
            link.connect()
        except OSError:
            for where in self._others:
                other = _connection(where, self._timeout_s)
                with contextlib.suppress(OSError):
                    other.connect()
                    return other
            raise
        return link


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix stream socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(self.timeout)
            link.connect(self._path)
        except BaseException:
            link.close()
            raise
        self.sock = link


def _connection(where: AdminAddress, timeout_s: float) -> http.client.HTTPConnection:
    if where.path:
        return _UnixConnection(where.path, timeout_s)
    return http.client.HTTPConnection(where.address, where.port, timeout=timeout_s)


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "The socket belongs to the user that runs Mailrail: try as that user"
    return "Is `mailrail serve` running with this configuration?"


def _read(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        raise ApiError(f"an answer that is not JSON (HTTP {status})", status) from None
    if not isinstance(answer, dict):
        raise ApiError(f"an answer that is not an object (HTTP {status})", status)
    if status >= 400:
        raise ApiError(str(answer.get("error", f"HTTP {status}")), status)
    return answer
