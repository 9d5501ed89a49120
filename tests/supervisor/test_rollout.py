"""Reload: a new plan on running shards; vmtas move in two phases."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from engine.cli.api import ApiError
from engine.cli.main import run

pytestmark = pytest.mark.slow  # starts real processes

Wait = Callable[[Callable[[], Any], str], Any]


def kinds(supervisor: Any, shard: int) -> list[str]:
    return [line["kind"] for line in supervisor.heard(shard) if line["kind"] not in ("peer",)]


def merge_addresses(supervisor: Any) -> tuple[str, int, int]:
    """Give a vmta of shard 1 the address of one of shard 0; return it, its old and its new owner."""
    owners = supervisor.heard(0, "configure")[-1]["assignment"]
    stays = next(vmta for vmta in owners if owners[vmta] == 0)
    moves = next(vmta for vmta in owners if owners[vmta] == 1)
    supervisor.vmtas[moves] = supervisor.vmtas[stays]
    return moves, 1, 0


def test_vmtas_and_listeners_come_and_go_without_a_restart(supervisor: Any, wait: Wait) -> None:
    supervisor.start()
    pids, port = supervisor.pids(), supervisor.port
    owners = supervisor.heard(0, "configure")[-1]["assignment"]
    supervisor.vmtas["v9"] = "127.0.0.10"
    second = free_port()
    supervisor.extra = (
        f'[[listener]]\nname = "more"\nprotocol = "smtp"\nlisten = "127.0.0.1:{second}"\ncustomer = "acme"'
    )
    supervisor.write()
    assert supervisor.api.post("/reload", {}) == {"generation": 2}
    body = supervisor.heard(1, "configure")[-1]
    assert body["generation"] == 2
    assert {vmta: shard for vmta, shard in body["assignment"].items() if vmta != "v9"} == owners
    assert supervisor.pids() == pids
    supervisor.port = second
    assert supervisor.greeting()[1] in pids
    supervisor.port, supervisor.extra = port, ""
    supervisor.write()
    supervisor.api.post("/reload", {})
    supervisor.port = second
    with pytest.raises(ConnectionRefusedError):
        supervisor.greeting()
    supervisor.port = port
    assert supervisor.greeting()[1] in pids


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_moving_vmta_is_released_then_adopted_then_configured(supervisor: Any) -> None:
    supervisor.start()
    vmta, old, new = merge_addresses(supervisor)
    supervisor.write()
    supervisor.api.post("/reload", {})
    assert kinds(supervisor, old) == ["configure", "release", "adopt", "configure"]
    assert kinds(supervisor, new) == ["configure", "adopt", "configure"]
    assert supervisor.heard(old, "release") == [{"vmtas": [vmta], "grace_s": 10.0}]
    assert supervisor.heard(new, "adopt") == [{"vmtas": {vmta: f"state of {vmta}".encode().hex()}}]
    assert supervisor.heard(new, "configure")[-1]["assignment"][vmta] == new


def test_the_new_owner_waits_until_the_old_one_is_dead_where_it_does_not_release(supervisor: Any) -> None:
    supervisor.release_timeout_s = 1
    supervisor.start()
    before = supervisor.pids()
    vmta, old, new = merge_addresses(supervisor)
    supervisor.order(old, release="hang")
    supervisor.write()
    supervisor.api.post("/reload", {})
    assert supervisor.heard(new, "configure")[-1]["assignment"][vmta] == new
    assert supervisor.heard(new, "adopt") == []
    assert not os.path.exists(f"/proc/{before[old]}")
    supervisor.order(old)
    supervisor.wait_up()


def test_the_assignment_survives_a_restart(supervisor: Any) -> None:
    supervisor.start()
    merge_addresses(supervisor)
    supervisor.write()
    supervisor.api.post("/reload", {})
    owners = supervisor.heard(0, "configure")[-1]["assignment"]
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait_exit() == 0
    supervisor.start()
    assert supervisor.heard(0, "configure")[-1]["assignment"] == owners


def test_a_wrong_configuration_is_refused_with_file_and_key_and_changes_nothing(supervisor: Any) -> None:
    supervisor.start()
    supervisor.extra = "[[pool]]\nname = 5"
    supervisor.write()
    with pytest.raises(ApiError, match=r"mailrail\.toml:\d+.*name") as refused:
        supervisor.api.post("/reload", {})
    assert refused.value.status == 422
    assert kinds(supervisor, 0) == ["configure"]
    assert supervisor.status()["generation"] == 1


def test_what_needs_a_restart_is_refused_by_name(supervisor: Any) -> None:
    supervisor.start()
    supervisor.shards = 3
    supervisor.write()
    with pytest.raises(ApiError, match=r"toml:4: \[engine\]: key shards can't change .* \(2 to 3\)"):
        supervisor.api.post("/reload", {})


def test_a_listener_that_can_not_be_opened_refuses_the_reload(supervisor: Any) -> None:
    supervisor.start()
    supervisor.extra = (
        '[[listener]]\nname = "elsewhere"\nprotocol = "smtp"\nlisten = "203.0.113.77:25"\ncustomer = "acme"'
    )
    supervisor.write()
    with pytest.raises(ApiError, match=r"\[\[listener\]\] number 2: key listen: 203\.0\.113\.77") as refused:
        supervisor.api.post("/reload", {})
    assert refused.value.status == 422
    assert kinds(supervisor, 0) == ["configure"]


def test_a_spool_that_can_not_be_made_refuses_the_reload(supervisor: Any) -> None:
    supervisor.start()
    supervisor.extra = '[[listener]]\nprotocol = "spool"\npath = "/proc/spool"\ncustomer = "acme"'
    supervisor.write()
    with pytest.raises(ApiError, match="key path: spool: /proc/spool: ") as refused:
        supervisor.api.post("/reload", {})
    assert refused.value.status == 422
    assert kinds(supervisor, 0) == ["configure"]


def test_a_plan_that_one_shard_refuses_is_taken_back_from_all(supervisor: Any) -> None:
    supervisor.start()
    vmta, old, new = merge_addresses(supervisor)
    owners = supervisor.heard(0, "configure")[-1]["assignment"]
    supervisor.order(old, configure="refuse")
    supervisor.write()
    with pytest.raises(ApiError, match=f"shard {old}: told to refuse"):
        supervisor.api.post("/reload", {})
    assert supervisor.heard(new, "configure")[-1]["assignment"] == owners
    (released,) = supervisor.heard(new, "release")
    assert vmta in released["vmtas"]  # and the one with which it shared an address
    supervisor.order(old)
    assert supervisor.wait_up()["generation"] == 1
    assert supervisor.heard(old, "configure")[-1]["assignment"] == owners
    assert supervisor.heard(new, "configure")[-1]["generation"] == 1
    assert supervisor.api.post("/reload", {}) == {"generation": 2}
    assert [supervisor.heard(shard, "configure")[-1]["generation"] for shard in (old, new)] == [2, 2]


def test_hangup_reloads(supervisor: Any, wait: Wait) -> None:
    supervisor.start()
    supervisor.signal(signal.SIGHUP)
    wait(lambda: supervisor.status()["generation"] == 2, "the reload is done")


def test_the_admin_api_moves_with_its_setting(supervisor: Any) -> None:
    supervisor.start()
    moved = supervisor.data_dir / "moved.sock"
    supervisor.extra = f'[admin]\nlisten = "{moved}"'
    supervisor.write()
    assert supervisor.api.post("/reload", {}) == {"generation": 2}
    assert moved.stat().st_mode & 0o777 == 0o600
    assert supervisor.status() == {}
    supervisor.use_admin(moved)
    assert supervisor.status()["generation"] == 2


def test_the_commands_find_the_engine_where_it_ran_before_its_address_was_changed(supervisor: Any) -> None:
    supervisor.start()
    moved = supervisor.data_dir / "moved.sock"
    supervisor.extra = f'[admin]\nlisten = "{moved}"'
    supervisor.write()
    config = str(supervisor.config)
    assert run(["reload", "-c", config]) == 0
    record = supervisor.data_dir / "run" / "admin"
    assert record.read_text() == f"unix:{moved}\n"
    assert run(["status", "-c", config]) == 0
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait_exit() == 0
    assert not record.exists()


def test_a_storm_of_hangups_is_few_reloads_and_the_last_one_counts(supervisor: Any, wait: Wait) -> None:
    supervisor.start()
    for _ in range(20):
        supervisor.signal(signal.SIGHUP)
    supervisor.vmtas["v9"] = "127.0.0.10"
    supervisor.write()
    supervisor.signal(signal.SIGHUP)
    wait(lambda: "v9" in supervisor.heard(1, "configure")[-1]["assignment"], "the last is heeded")
    assert len(supervisor.heard(1, "configure")) < 20
