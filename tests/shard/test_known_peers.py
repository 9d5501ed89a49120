"""known_peers: what is remembered of peers is on disk when it has changed, and back after a restart."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.delivery.peer_memory import PeerMemory
from engine.shard.known_peers import KnownPeers


def make(tmp_path: Path) -> tuple[PeerMemory, KnownPeers]:
    memory = PeerMemory()
    known = KnownPeers(memory, tmp_path / "peers", time.monotonic)
    known.open()
    return memory, known


def test_faults_of_peers_outlive_the_process(tmp_path: Path) -> None:
    memory, known = make(tmp_path)
    known.keep()
    assert not (tmp_path / "peers").exists()
    for peer in ("192.0.2.1", "192.0.2.2"):
        memory.remember(peer, "tls", time.monotonic() + 1000.0, "why", "as mx")
        known.keep()
    assert (tmp_path / "peers").stat().st_mode & 0o777 == 0o600
    again, _ = make(tmp_path)
    assert [each.peer for each in again.faults(time.monotonic())] == ["192.0.2.1", "192.0.2.2"]


def test_unreadable_faults_are_learnt_anew(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "peers").write_bytes(b"\xc1")
    memory, known = make(tmp_path)
    assert not memory.faults(0.0)
    memory.remember("192.0.2.1", "tls", time.monotonic() + 1000.0, "why", "as mx")
    known.keep()
    again, _ = make(tmp_path)
    assert len(again.faults(time.monotonic())) == 1


def test_a_file_that_can_not_be_written_stops_nobody(tmp_path: Path) -> None:
    memory, known = make(tmp_path)
    (tmp_path / "peers.new").mkdir()
    memory.remember("192.0.2.1", "tls", time.monotonic() + 1000.0, "why", "as mx")
    known.keep()
    assert not (tmp_path / "peers").exists()
    (tmp_path / "peers.new").rmdir()
    known.keep()
    assert (tmp_path / "peers").exists()
