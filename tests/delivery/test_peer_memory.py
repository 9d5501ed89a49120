"""peer_memory: what is known of peers, for how long, within which bound."""

from __future__ import annotations

import msgspec
import pytest

from engine.delivery.peer_memory import PeerMemory, peer_key


def test_a_fault_is_known_until_its_time_and_no_longer():
    memory = PeerMemory()
    memory.remember("192.0.2.1", "tls", 100.0)
    assert memory.knows("192.0.2.1", "tls", 99.9)
    assert not memory.knows("192.0.2.1", "tls", 100.0)
    assert not memory.faults(99.0)  # it is gone, not only out of force


def test_faults_and_peers_are_told_apart():
    memory = PeerMemory()
    memory.remember("192.0.2.1", "tls", 100.0)
    assert not memory.knows("192.0.2.1", "chunking", 1.0)
    assert not memory.knows("192.0.2.2", "tls", 1.0)


def test_a_later_word_replaces_the_earlier():
    memory = PeerMemory()
    memory.remember("mx.example", "tls", 10.0, "first")
    memory.remember("mx.example", "tls", 20.0, "second")
    assert [(each.until, each.detail) for each in memory.faults(5.0)] == [(20.0, "second")]


def test_a_fault_can_be_taken_back():
    memory = PeerMemory()
    memory.remember("mx.example", "tls", 10.0)
    memory.forget("mx.example", "tls")
    memory.forget("mx.example", "tls")
    assert not memory.knows("mx.example", "tls", 1.0)


def test_the_oldest_goes_where_the_bound_is_reached():
    memory = PeerMemory(max_faults=2)
    for number in range(3):
        memory.remember(f"mx{number}.example", "tls", 10.0)
    assert [each.peer for each in memory.faults(1.0)] == ["mx1.example", "mx2.example"]


def test_a_restart_keeps_what_is_in_force():
    memory = PeerMemory()
    memory.remember("mx1.example", "tls", 1_000.0, "handshake failed", "as mx, TLS 1.2 or newer")
    memory.remember("mx2.example", "tls", 110.0)
    octets = memory.export(100.0, 1_700_000_000.0)
    later = PeerMemory()
    later.restore(octets, 7.0, 1_700_000_060.0)  # another boot: the loop's clock began anew
    assert [each._replace(until=0.0) for each in later.faults(7.0)] == [
        ("mx1.example", "tls", 0.0, "handshake failed", "as mx, TLS 1.2 or newer")
    ]
    assert later.knows("mx1.example", "tls", 7.0 + 839.0, "as mx, TLS 1.2 or newer")
    assert not later.knows("mx1.example", "tls", 7.0 + 841.0, "as mx, TLS 1.2 or newer")


def test_what_was_kept_without_terms_is_read_except_of_handshakes():
    """Releases before kept the address alone: what the peer was offered, and at which port, is not known."""
    kept = [["192.0.2.1", "tls", 2_000.0, "mx: failed"], ["192.0.2.1:2525", "chunking", 2_000.0, "mx"]]
    memory = PeerMemory()
    memory.restore(msgspec.msgpack.encode(kept), 0.0, 1_000.0)
    assert [(each.peer, each.fault) for each in memory.faults(0.0)] == [("192.0.2.1:2525", "chunking")]


def test_other_terms_are_another_fact():
    memory = PeerMemory()
    memory.remember("192.0.2.1", "tls", 10.0, "no shared version", "TLS 1.3")
    memory.remember("192.0.2.1", "tls", 20.0, "reset", "TLS 1.2")
    memory.forget("192.0.2.1", "tls", "TLS 1.2")
    assert memory.knows("192.0.2.1", "tls", 1.0, "TLS 1.3")
    assert not memory.knows("192.0.2.1", "tls", 1.0, "TLS 1.2")
    assert not memory.knows("192.0.2.1", "tls", 1.0)


def test_another_port_is_another_peer():
    assert peer_key("mx", "192.0.2.1", 25) == "192.0.2.1"
    assert peer_key("mx", "192.0.2.1", 2525) == "192.0.2.1:2525"
    assert peer_key("mx", "2001:db8::1", 2525) == "[2001:db8::1]:2525"
    assert peer_key("unix:/run/lmtp", "", 0) == "unix:/run/lmtp"


def test_one_peers_faults_can_be_listed():
    memory = PeerMemory()
    memory.remember("mx1.example", "tls", 10.0)
    memory.remember("mx2.example", "tls", 10.0)
    assert [each.peer for each in memory.faults(1.0, "mx2.example")] == ["mx2.example"]


@pytest.mark.parametrize("octets", [b"", b"\xc1", b"\x91\x01", b"\x81\xa1a\x01"])
def test_what_was_not_exported_is_refused(octets):
    with pytest.raises(ValueError, match=r"."):
        PeerMemory().restore(octets, 0.0, 0.0)
