"""The supervisor's promises, with real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # starts real processes

Wait = Callable[[Callable[[], Any], str], Any]


def test_every_shard_is_told_who_it_is_and_the_others_are_introduced(supervisor: Any, wait: Wait) -> None:
    supervisor.start()
    bodies = [supervisor.heard(shard, "configure")[0] for shard in (0, 1)]
    assert [body["shard"] for body in bodies] == [0, 1]
    assert {body["shards"] for body in bodies} == {2}
    assert bodies[0]["assignment"] == bodies[1]["assignment"]
    assert sorted(bodies[0]["assignment"].values()) == [0, 0, 1, 1]
    assert bodies[0]["listeners"] == {"in": f"tcp:127.0.0.1:{supervisor.port}"}
    assert bodies[0]["incarnation"] != bodies[1]["incarnation"]
    for shard in (0, 1):
        told = {"shard": 1 - shard, "up": True, "incarnation": bodies[1 - shard]["incarnation"]}
        wait(lambda shard=shard, told=told: told in supervisor.heard(shard, "peer"), "peers are introduced")


def test_a_killed_shard_is_restarted_and_its_peer_told_both_times(supervisor: Any, wait: Wait) -> None:
    supervisor.start()
    os.kill(supervisor.pids()[0], signal.SIGKILL)
    supervisor.wait_restarted(0, starts=2)
    first, second = [body["incarnation"] for body in supervisor.heard(0, "configure")]
    wait(lambda: supervisor.heard(1, "peer")[-1]["incarnation"] == second, "the peer heard of it")
    assert [body["incarnation"] for body in supervisor.heard(1, "peer")][-3:] == [first, None, second]
    shard = supervisor.status()["shards"][0]
    assert (shard["starts"], shard["last_death"]) == (2, "SIGKILL")


def test_clients_are_greeted_while_a_shard_is_down(supervisor: Any, wait: Wait) -> None:
    supervisor.start()
    supervisor.order(0, configure="die")
    os.kill(supervisor.pids()[0], signal.SIGKILL)
    wait(lambda: not supervisor.status()["shards"][0]["is_up"], "the shard is down")
    for _ in range(20):
        assert supervisor.greeting()[0] == 1
    supervisor.order(0)
    supervisor.wait_up()


def test_clients_wait_in_the_backlog_for_an_only_shard(supervisor: Any) -> None:
    supervisor.shards = 1
    supervisor.start()
    before = supervisor.pids()[0]
    os.kill(before, signal.SIGKILL)
    assert supervisor.greeting()[1] != before


def test_a_stop_is_graceful_and_closes_the_listeners(supervisor: Any, wait_process_dead: Any) -> None:
    supervisor.start()
    pids = supervisor.pids()
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait_exit() == 0
    assert [supervisor.heard(shard, "stop") for shard in (0, 1)] == [[{"grace_s": 3.0}]] * 2
    for pid in pids:
        wait_process_dead(pid)
    with pytest.raises(ConnectionRefusedError):
        supervisor.greeting()
    assert not (supervisor.data_dir / "admin.sock").exists()


def test_a_second_signal_ends_at_once(supervisor: Any, wait: Wait, wait_process_dead: Any) -> None:
    supervisor.engine_lines = ""
    supervisor.start()
    supervisor.order(0, stop="hang")
    pids = supervisor.pids()
    supervisor.signal(signal.SIGTERM)
    wait(lambda: supervisor.heard(0, "stop"), "the first signal is heeded")
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait_exit() == 1
    for pid in pids:
        wait_process_dead(pid)


def test_shards_end_with_a_killed_supervisor_and_another_may_start(
    supervisor: Any, wait_process_dead: Any
) -> None:
    supervisor.start()
    pids = supervisor.pids()
    supervisor.kill()
    for pid in pids:
        wait_process_dead(pid)
    supervisor.start()
    assert set(supervisor.pids()).isdisjoint(pids)


def test_a_new_supervisor_waits_for_the_one_that_stops(supervisor: Any, wait: Wait) -> None:
    supervisor.start()
    old, supervisor.process = supervisor.process, None
    supervisor.start(is_awaited=False)
    old.terminate()
    assert old.wait(20) == 0
    supervisor.wait_up()


def test_a_configuration_error_at_start_is_exit_status_1_and_named(supervisor: Any) -> None:
    supervisor.extra = "[nonsense]"
    supervisor.start(is_awaited=False)
    assert supervisor.wait_exit() == 1
    assert "mailrail.toml" in supervisor.log_text()
    assert "nonsense" in supervisor.log_text()
    assert "Traceback" not in supervisor.log_text()


def test_an_address_that_can_not_be_listened_on_is_exit_status_1(supervisor: Any) -> None:
    supervisor.extra = (
        '[[listener]]\nname = "elsewhere"\nprotocol = "smtp"\nlisten = "203.0.113.77:25"\ncustomer = "acme"'
    )
    supervisor.start(is_awaited=False)
    assert supervisor.wait_exit() == 1
    assert "203.0.113.77" in supervisor.log_text()
    assert "Traceback" not in supervisor.log_text()


def test_a_shard_that_refuses_its_configuration_is_named_and_tried_again(supervisor: Any, wait: Wait) -> None:
    supervisor.order(1, configure="refuse")
    supervisor.start(is_awaited=False)
    wait(
        lambda: supervisor.status() and supervisor.status()["shards"][1]["refusal"] == "told to refuse",
        "it refused",
    )
    wait(lambda: supervisor.greeting()[0] == 0, "the other shard serves")
    supervisor.order(1)
    supervisor.wait_up()


def test_a_start_that_every_shard_refuses_has_failed_and_systemd_is_not_told_otherwise(
    supervisor: Any, notifications: Any
) -> None:
    for shard in (0, 1):
        supervisor.order(shard, configure="refuse")
    supervisor.start(is_awaited=False)
    assert supervisor.wait_exit() == 1
    assert f"mailrail: {supervisor.config}: no shard can start: told to refuse\n" in supervisor.log_text()
    assert "Traceback" not in supervisor.log_text()
    assert not supervisor.admin_path.exists()
    notifications.socket.settimeout(0)
    with pytest.raises(BlockingIOError):
        notifications.next()


def test_a_directory_that_can_not_be_made_is_exit_status_1_and_named_by_its_key(supervisor: Any) -> None:
    supervisor.extra = '[[listener]]\nprotocol = "spool"\npath = "/proc/spool"\ncustomer = "acme"'
    supervisor.start(is_awaited=False)
    assert supervisor.wait_exit() == 1
    assert "[[listener]] number 2: key path: spool: /proc/spool: " in supervisor.log_text()
    assert not supervisor.heard(0)


def test_stores_without_a_shard_are_given_to_the_shards_that_exist(supervisor: Any) -> None:
    for number in (2, 3, 5):
        (supervisor.data_dir / f"shard-{number}").mkdir()
    (supervisor.data_dir / "shard-x").mkdir()
    supervisor.start()
    assert [supervisor.heard(shard, "configure")[0]["adopt_stores"] for shard in (0, 1)] == [[2], [3, 5]]


def test_shards_are_told_when_their_number_changed(supervisor: Any) -> None:
    told = []
    for shards in (2, 2, 3, 3):
        supervisor.shards = shards
        supervisor.write()
        supervisor.start()
        told.append(supervisor.heard(0, "configure")[-1]["recounted_at"])
        supervisor.signal(signal.SIGTERM)
        assert supervisor.wait_exit() == 0
    assert told[0] == told[1] == 0.0
    assert told[1] < told[2] == told[3]
    (supervisor.data_dir / "assignment.json").unlink()
    supervisor.start()
    assert supervisor.heard(0, "configure")[-1]["recounted_at"] > told[3], "nobody knows: it may be just now"


def test_a_delivery_on_which_shards_die_is_told_as_poison(supervisor: Any) -> None:
    supervisor.start()
    key = bytes(range(14))
    for starts in (2, 3):
        assert supervisor.heard(0, "configure")[-1]["poison"] == []
        (supervisor.data_dir / "shard-0" / "step").write_bytes(key)
        os.kill(supervisor.pids()[0], signal.SIGABRT)
        supervisor.wait_restarted(0, starts=starts)
    assert supervisor.heard(0, "configure")[-1]["poison"] == [key.hex()]


def test_draining_is_told_to_shards_that_start_later_too(supervisor: Any, wait: Wait) -> None:
    supervisor.start()
    assert supervisor.api.post("/drain", {"on": True}) == {"is_draining": True}
    assert [supervisor.heard(shard, "drain") for shard in (0, 1)] == [[{"on": True}]] * 2
    os.kill(supervisor.pids()[1], signal.SIGKILL)
    wait(lambda: len(supervisor.heard(1, "configure")) == 2, "it is configured again")
    assert supervisor.heard(1, "configure")[-1]["is_draining"] is True


def test_no_counter_falls_when_a_shard_dies(supervisor: Any) -> None:
    supervisor.start()

    def uncertain() -> float:
        [line] = [
            line for line in supervisor.metrics().splitlines() if line.startswith("mailrail_uncertain_total ")
        ]
        return float(line.split()[1])

    assert uncertain() == 2
    os.kill(supervisor.pids()[0], signal.SIGKILL)
    supervisor.wait_restarted(0, starts=2)
    assert uncertain() == 3
    assert 'mailrail_shard_restarts_total{shard="0"} 1.0' in supervisor.metrics()
    assert 'mailrail_anonymous_bytes{process="supervisor"}' in supervisor.metrics()


def test_systemd_is_told_when_the_engine_serves_reloads_and_stops(
    supervisor: Any, notifications: Any
) -> None:
    supervisor.start()
    assert notifications.next().startswith("READY=1\nSTATUS=2 of 2 shards up\n")
    supervisor.signal(signal.SIGHUP)
    assert notifications.next().startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert notifications.next().startswith("READY=1\nSTATUS=2 of 2 shards up, generation 2\n")
    supervisor.signal(signal.SIGTERM)
    assert notifications.next() == "STOPPING=1"
    assert supervisor.wait_exit() == 0


def test_systemd_is_not_told_ready_before_a_shard_serves_but_why_none_does(
    supervisor: Any, notifications: Any, wait: Wait
) -> None:
    for shard in (0, 1):
        supervisor.order(shard, configure="die")
    supervisor.start(is_awaited=False)
    assert notifications.next() == "STATUS=0 of 2 shards up: shard 0, 1: exit status 3"
    wait(lambda: "no shard serves yet" in supervisor.log_text(), "it is logged")
    wait(
        lambda: supervisor.status() and supervisor.status()["shards"][1]["starts"] >= 3,
        "they are tried again",
    )
    supervisor.order(1)
    told = [notifications.next()]
    while not told[-1].startswith("READY=1"):
        told.append(notifications.next())
    assert {line.partition(":")[0] for line in told[:-1]} <= {"STATUS=0 of 2 shards up"}
    assert "READY=1\nSTATUS=1 of 2 shards up: shard 0: exit status 3\n" in told[-1]
    assert supervisor.greeting()[0] == 1
    supervisor.order(0)
    supervisor.wait_up()
    while (last := notifications.next()) != "STATUS=2 of 2 shards up":
        assert last.startswith("STATUS=1 of 2 shards up: shard 0: ")  # READY is said once
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait_exit() == 0


def test_a_start_that_never_came_to_serve_stops_when_told(supervisor: Any, notifications: Any) -> None:
    for shard in (0, 1):
        supervisor.order(shard, configure="die")
    supervisor.start(is_awaited=False)
    notifications.next()
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait_exit() == 0
    assert "Traceback" not in supervisor.log_text()


def test_a_reload_can_mend_a_start_that_came_to_nothing(
    supervisor: Any, notifications: Any, wait: Wait
) -> None:
    for shard in (0, 1):
        supervisor.order(shard, configure="die")
    supervisor.start(is_awaited=False)
    notifications.next()
    supervisor.vmtas["v9"] = "127.0.0.9"
    supervisor.write()
    supervisor.signal(signal.SIGHUP)
    wait(lambda: supervisor.status().get("generation") == 2, "the new configuration is in force")
    for shard in (0, 1):
        supervisor.order(shard)
    supervisor.wait_up()
    assert "v9" in supervisor.heard(0, "configure")[-1]["assignment"]
    while not (last := notifications.next()).startswith("READY=1"):
        assert last.startswith("STATUS=0 of 2")


def test_queries_go_to_the_shards_that_can_answer_them(supervisor: Any) -> None:
    supervisor.start()
    owners = supervisor.heard(0, "configure")[0]["assignment"]
    for vmta, shard in owners.items():
        answer = supervisor.api.get("/explain", {"domain": "x.example", "vmta": vmta})
        assert answer == {"domain": "x.example", "shard": shard}
    assert supervisor.api.get("/messages/" + "0" * 24)["shard"] == 1
    [row] = supervisor.api.get("/queues")["queues"]
    assert row == {"customer": "acme", "domain": "a.example", "messages": 2, "due_at": 100.0}
    assert supervisor.status()["counts"] == {"stored": 4}
