"""What the tests of `engine.net` share: uvloop, a scripted peer, a certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.rig.certificate import write_certificate

Dialogue = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine under uvloop, as a shard does."""

    def run_it(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(coroutine)

    return run_it


@pytest.fixture
def peer() -> Callable[..., contextlib.AbstractAsyncContextManager[int]]:
    """Return a scripted peer: `async with peer(dialogue) as port`."""
    return serve_dialogue


@contextlib.asynccontextmanager
async def serve_dialogue(
    dialogue: Dialogue, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve each connection with `dialogue`; yields the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await dialogue(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate with its key, for mx.example."""
    return write_certificate(tmp_path_factory.mktemp("tls") / "mx.pem", "mx.example")
