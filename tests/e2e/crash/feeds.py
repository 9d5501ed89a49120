"""Load from all three feeds at once; each keeps on record what was accepted, and goes on after a crash.

Owns: what "accepted" means to an injector: 250, the socket's reply, a spool file gone from new/ and claimed/.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from engine.client import ConnectionLost, SocketClient, Submission, SubmissionReply
from tests.e2e.feeding import make_message
from tests.e2e.sink_process import ROOT

RETRY_S = 0.05


class Feed(ABC):
    """One feed under load. `accepted` maps the id of a message to its recipient."""

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def accepted(self) -> dict[str, str]: ...


class SMTPFeed(Feed):
    """engine.rig.source as a process, connecting again and again."""

    def __init__(self, root: Path, port: int, sender: str, rate: int) -> None:
        self._log = root / "accepted.jsonl"
        self._report = root / "source.json"
        self._command = [sys.executable, "-m", "engine.rig.source", "--to", f"127.0.0.1:{port}={sender}"]
        self._command += ["--messages", "1000000", "--rate", str(rate), "--sessions", "8", "--size", "3000"]
        self._command += ["--domains", "5", "--reconnect", "--run", "smtp", "--seconds", "200"]
        self._command += ["--per-session", "50", "--accepted", str(self._log), "--report", str(self._report)]
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._child = subprocess.Popen(self._command, cwd=ROOT, process_group=0)

    def stop(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGTERM)
        self._child.wait(20)

    def accepted(self) -> dict[str, str]:
        rows = [json.loads(line) for line in self._log.read_text().splitlines()]
        return {row["id"]: row["rcpt"][0] for row in rows}


class ThreadFeed(Feed):
    """A feed whose load is a thread of the test; `turn` sends a few messages, `numbers` says which."""

    def __init__(self, name: str, sender: str, domain: str, per_turn: int, every_s: float) -> None:
        self._name = name
        self._sender = sender
        self._domain = domain
        self._per_turn = per_turn
        self._every_s = every_s
        self._count = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join(20)
        assert self.failure is None, repr(self.failure)

    @abstractmethod
    def turn(self, messages: list[tuple[str, str, bytes]]) -> None:
        """Send these (id, recipient, message)."""

    def _run(self) -> None:
        try:
            while not self._is_over.wait(self._every_s):
                self.turn([self._next() for _ in range(self._per_turn)])
        except BaseException as error:
            self.failure = error
            raise

    def _next(self) -> tuple[str, str, bytes]:
        self._count += 1
        test_id = f"{self._name}-{self._count}"
        recipient = f"{test_id}@{self._domain}"
        return test_id, recipient, make_message(self._sender, recipient, test_id, 2000)


class SocketFeed(ThreadFeed):
    """The injection socket; what was not answered is repeated under its id, which is idempotent."""

    def __init__(self, path: Path, sender: str, domain: str) -> None:
        super().__init__("socket", sender, domain, 10, 0.15)
        self._path = path
        self._accepted: dict[str, str] = {}
        self._client: SocketClient | None = None

    def turn(self, messages: list[tuple[str, str, bytes]]) -> None:
        waiting = {row[0]: row for row in messages}
        deadline = time.monotonic() + 30
        while waiting:
            assert time.monotonic() < deadline, f"the socket takes nothing: {sorted(waiting)[:3]}"
            try:
                for reply in self._submit(list(waiting.values())):
                    if reply.is_accepted:
                        row = waiting.pop(str(reply.id))
                        self._accepted[row[0]] = row[1]
                    else:
                        assert reply.is_temporary, reply
            except (ConnectionLost, OSError):
                self._close()
            if waiting:
                time.sleep(RETRY_S)

    def _submit(self, rows: list[tuple[str, str, bytes]]) -> Iterator[SubmissionReply]:
        if self._client is None:
            self._client = SocketClient(str(self._path))
        return self._client.submit_all(
            Submission(id=row[0], sender=self._sender, recipients=[row[1]], message=row[2], idempotent=True)
            for row in rows
        )

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def stop(self) -> None:
        super().stop()
        self._close()

    def accepted(self) -> dict[str, str]:
        return dict(self._accepted)


class SpoolFeed(ThreadFeed):
    """The spool directory, as its writers use it: written in tmp/, renamed into new/."""

    def __init__(self, path: Path, sender: str, domain: str) -> None:
        super().__init__("spool", sender, domain, 4, 0.15)
        self._path = path
        self._written: dict[str, tuple[str, str]] = {}  # by file name

    def turn(self, messages: list[tuple[str, str, bytes]]) -> None:
        for test_id, recipient, message in messages:
            name = f"{test_id}.eml"
            head = f"X-Sender: <{self._sender}>\r\nX-Receiver: <{recipient}>\r\n".encode()
            (self._path / "tmp" / name).write_bytes(head + message)
            os.rename(self._path / "tmp" / name, self._path / "new" / name)
            self._written[name] = (test_id, recipient)

    def left(self) -> set[str]:
        """Return the names in new/ and claimed/."""
        return files_in_spool(self._path)

    def failed(self) -> list[str]:
        return sorted(path.name for path in (self._path / "failed").iterdir())

    def accepted(self) -> dict[str, str]:
        left = self.left()
        return dict(row for name, row in self._written.items() if not any(name in each for each in left))


def files_in_spool(spool: Path) -> set[str]:
    """Return the names of files that the engine has not answered for yet."""
    found = [*(spool / "new").rglob("*"), *(spool / "claimed").rglob("*")]
    return {path.name for path in found if not path.is_dir()}
