"""A certificate for the occasion."""

from __future__ import annotations

import ssl

from engine.rig.certificate import client_context, server_context, write_certificate


def test_a_handshake_succeeds_with_it(tmp_path):
    server = server_context(write_certificate(tmp_path / "sink.pem", "mx.example"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client_context().wrap_bio(to_client, to_server, server_hostname="mx.example"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not waiting
    assert ends[0].version() == "TLSv1.3"


def test_the_key_is_for_its_owner_only(tmp_path):
    path = write_certificate(tmp_path / "sink.pem", "mx.example")
    assert path.stat().st_mode & 0o077 == 0
