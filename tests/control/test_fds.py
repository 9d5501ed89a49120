"""Listeners that change process."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from engine.control.fds import ListenerInbox, ListenerSender, open_channel


def run(main: object) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)  # type: ignore[arg-type]


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_a_listener_arrives_under_its_key_and_accepts() -> None:
    async def main() -> None:
        ours, theirs = open_channel()
        sender, inbox = ListenerSender(ours), ListenerInbox(theirs)
        with listen() as listener:
            address = listener.getsockname()
            sender.send("tcp:127.0.0.1:25", listener)
        with await inbox.take("tcp:127.0.0.1:25") as received:
            assert received.getsockname() == address
            assert not received.get_inheritable()
            with socket.create_connection(address):
                await asyncio.sleep(0)
                received.accept()[0].close()
        sender.close()
        inbox.close()

    run(main())


def test_keys_and_descriptors_stay_together_when_the_shard_is_busy() -> None:
    async def main() -> None:
        ours, theirs = open_channel()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sender = ListenerSender(ours)
        with listen() as one, listen() as two:
            for number in range(200):
                sender.send(f"key-{number}", (one, two)[number % 2])
            assert sender._waiting, "the channel was meant to be full"
            inbox = ListenerInbox(theirs)
            for number in range(200):
                with await inbox.take(f"key-{number}") as received:
                    assert received.getsockname() == (one, two)[number % 2].getsockname()
        assert not sender._waiting
        sender.close()
        inbox.close()

    run(main())


def test_a_dead_shard_does_not_disturb_the_sender() -> None:
    async def main() -> None:
        ours, theirs = open_channel()
        theirs.close()
        sender = ListenerSender(ours)
        with listen() as listener:
            sender.send("a", listener)
            sender.send("b", listener)
        assert not sender._waiting
        sender.close()

    run(main())


def test_a_dead_supervisor_is_silence_and_closing_cancels_who_waits() -> None:
    async def main() -> None:
        ours, theirs = open_channel()
        inbox = ListenerInbox(theirs)
        waiting = asyncio.ensure_future(inbox.take("never"))
        ours.close()
        await asyncio.sleep(0.01)
        assert not waiting.done()
        inbox.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(main())


def test_a_second_listener_under_a_key_that_nobody_took_replaces_the_first() -> None:
    async def main() -> None:
        ours, theirs = open_channel()
        sender, inbox = ListenerSender(ours), ListenerInbox(theirs)
        with listen() as one, listen() as two:
            sender.send("key", one)
            sender.send("key", two)
            sender.send("end", one)
            (await inbox.take("end")).close()
            with await inbox.take("key") as received:
                assert received.getsockname() == two.getsockname()
        sender.close()
        inbox.close()

    run(main())
