"""The alert of a handshake that fails comes out on the socket."""

from __future__ import annotations

import socket
import ssl

import pytest

from engine.net.alerts import TellingObject, telling
from engine.net.certificate import make_server_context
from tests.fakes.authority import Authority

CLIENT_HELLO_OF_TLS_1_1 = (
    bytes.fromhex("160301002f0100002b0302") + bytes(32) + bytes.fromhex("0000040035002f0100")
)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    file = str(Authority("mx.example", is_ca=False).write(tmp_path_factory.mktemp("tls") / "mx.pem"))
    return make_server_context(file, file)


def test_alert_is_written_to_the_socket(context: ssl.SSLContext) -> None:
    """RFC 8446 section 6.2: whoever aborts a handshake SHOULD say why."""
    ours, theirs = socket.socketpair()
    with ours, theirs, telling(context, ours.fileno()) as lent:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        made = lent.wrap_bio(incoming, outgoing, server_side=True)
        assert isinstance(made, TellingObject)
        with pytest.raises(ssl.SSLWantReadError):
            made.do_handshake()
        incoming.write(CLIENT_HELLO_OF_TLS_1_1)
        with pytest.raises(ssl.SSLError):
            made.do_handshake()
        theirs.setblocking(False)
        alert = theirs.recv(100)
    assert (alert[0], alert[5], alert[6]) == (21, 2, 70)  # an alert, fatal, protocol_version


def test_socket_that_is_gone_is_no_failure_of_its_own(context: ssl.SSLContext) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, telling(context, ours.fileno()) as lent:
        incoming = ssl.MemoryBIO()
        made = lent.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
        incoming.write(CLIENT_HELLO_OF_TLS_1_1)
        with pytest.raises(ssl.SSLError):
            made.do_handshake()


def test_session_that_is_up_knows_no_descriptor_any_more(context: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    client = client_context.wrap_bio(to_client, to_server)
    with telling(context, -1) as lent:
        server = lent.wrap_bio(to_server, to_client, server_side=True)
    assert isinstance(server, TellingObject)
    ends, turns = [client, server], 0
    while ends and turns < 20:
        turns += 1
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
    assert not ends
    assert server.last_words is None
