"""One connection at a time from a socket that shards share."""

from __future__ import annotations

import asyncio
import errno
import socket

from engine.net.accepting import Accepting


def listening():
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock, sock.getsockname()


def test_two_that_share_a_socket_share_a_burst():
    async def main():
        sock, place = listening()
        counts = [0, 0]

        def counting(index):
            def make():
                counts[index] += 1
                return asyncio.Protocol()

            return make

        clients = [socket.create_connection(place) for _ in range(20)]
        both = [Accepting(each, counting(index)) for index, each in enumerate((sock, sock.dup()))]
        for _ in range(200):
            await asyncio.sleep(0.001)
            if sum(counts) == 20:
                break
        for each in both:
            each.close()
            each.close()  # twice does no harm
        for client in clients:
            client.close()
        assert sum(counts) == 20
        assert min(counts) >= 5

    asyncio.run(main())


class Exhausted:
    """A listener in a process without descriptors."""

    def __init__(self, sock):
        self._sock = sock
        self.fails = True

    def accept(self):
        if self.fails:
            raise OSError(errno.EMFILE, "Too many open files")
        return self._sock.accept()

    def __getattr__(self, name):
        return getattr(self._sock, name)


def test_without_descriptors_it_pauses_and_goes_on(monkeypatch):
    monkeypatch.setattr("engine.net.accepting.EXHAUSTED_PAUSE_S", 0.01)

    async def main():
        sock, place = listening()
        listener, made = Exhausted(sock), []

        def make():
            made.append(1)
            return asyncio.Protocol()

        accepting = Accepting(listener, make)
        client = socket.create_connection(place)
        await asyncio.sleep(0.05)
        assert not made
        listener.fails = False
        await asyncio.sleep(0.1)
        accepting.close()
        client.close()
        assert made == [1]

    asyncio.run(main())


def test_something_may_come_before_the_protocol_and_a_client_that_leaves_meanwhile_harms_nobody():
    async def main():
        sock, place = listening()
        served = []

        async def serve(connection):
            served.append(connection)
            if len(served) == 1:
                raise ConnectionResetError("gone")
            await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, connection)

        accepting = Accepting(sock, asyncio.Protocol, serve)
        clients = [socket.create_connection(place) for _ in range(2)]
        for _ in range(200):
            await asyncio.sleep(0.001)
            if len(served) == 2:
                break
        accepting.close()
        assert served[0].fileno() == -1
        for client in clients:
            client.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())
