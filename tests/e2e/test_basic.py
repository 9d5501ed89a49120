"""What the engine promises an operator, seen from outside: addresses, retries, reload, stop, bad luck."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.configuration import SINK_ADDRESS, Configuration, free_port
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import addresses, inject, make_message
from tests.e2e.judging import copies
from tests.e2e.sink_process import SinkProcess
from tests.lacking import need_root

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(60)]

Run = Callable[..., EngineProcess]
Serve = Callable[..., tuple[int, EngineProcess]]
NOBODY = 65534
MANY = 200


def inject_in_turns(port: int, sender: str, count: int) -> dict[str, str]:
    """Inject with pauses, so that every shard gets its part.

    One shard accepts all of a session, and keeps what it accepts until it is 32 messages ahead, which it
    knows once shards have told each other what they placed, every 0.2 s.
    """
    turns = 5
    accepted = {}
    recipients = addresses(count, "one.example", "other.example")
    for turn in range(turns):
        accepted |= inject(port, sender, recipients[turn::turns])
        time.sleep(0.3)
    return accepted


def as_nobody() -> list[str]:
    """Return a command that runs another as nobody.

    It may read what it can't by its uid: interpreter and repository may lie where only root gets. Writing
    is what the tests are about.
    """
    setpriv = shutil.which("setpriv")
    assert setpriv, "setpriv is of util-linux, which no Debian lacks"
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    capabilities = [
        f"--{which}=-all,+dac_read_search" for which in ("inh-caps", "ambient-caps", "bounding-set")
    ]
    return [setpriv, *user, *capabilities]


def wait_final(engine: EngineProcess, count: int, timeout_s: float = 15.0) -> list[dict]:
    """Wait for so many final events."""

    def final() -> list[dict]:
        found = engine.events_of("delivered", "bounced", "expired", "cancelled")
        return found if len(found) >= count else []

    return wait_until(final, timeout_s, f"{count} final events; the log ends:\n{engine.log_tail()}")


# -- addresses, customers, events ---------------------------------------------------------------------


def test_each_customers_mail_leaves_from_its_own_addresses_under_its_own_names(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    """RFC 5321 section 4.1.1.1."""
    sources = {
        "acme": ["127.0.1.1", "127.0.1.2", "127.0.1.3"],
        "globex": ["127.0.2.1"],
        "initech": ["127.0.3.1", "127.0.3.2"],
    }
    ports = {}
    for customer, own in sources.items():
        configuration.add_customer(customer, *own)
        ports[customer] = configuration.add_smtp(customer=customer)
    sink.start()
    engine = run_engine()
    sent = {}
    for customer, port in ports.items():
        for test_id in inject_in_turns(port, f"news@{customer}.example", MANY):
            sent[test_id] = customer
    sink.wait_messages(3 * MANY)
    arrivals = sink.arrivals()
    assert sorted(arrival.id for arrival in arrivals) == sorted(sent)
    used: dict[str, set[str]] = {}
    for arrival in arrivals:
        customer = sent[arrival.id]
        number = sources[customer].index(arrival.source) + 1
        assert arrival.ehlo == f"mail{number}.{customer}.example"
        assert arrival.sender == f"news@{customer}.example"
        used.setdefault(customer, set()).add(arrival.source)
    assert all(used[customer] <= set(own) for customer, own in sources.items())
    delivered = wait_final(engine, 3 * MANY)
    by_id = {arrival.recipients[0] + arrival.sender: arrival for arrival in arrivals}
    for event in delivered:
        arrival = by_id[event["recipient"] + event["sender"]]
        assert (event["source"], event["hostname"]) == (arrival.source, arrival.ehlo)
        assert event["customer"] == event["pool"] == event["vmta"].rpartition("-")[0]
    assert len(engine.events_of("accepted")) == 3 * MANY
    assert engine.stop() == 0


def test_a_trickle_is_dealt_over_all_vmtas_of_a_pool(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    """By weight, though a session of the first vmta would always be there to take the next message."""
    configuration.engine["shards"] = 1
    configuration.add_customer("acme", "127.0.1.1", "127.0.1.2")
    port = configuration.add_smtp(customer="acme")
    sink.start()
    run_engine()
    for recipient in addresses(60, "one.example"):
        inject(port, "news@acme.example", [recipient])
    sink.wait_messages(60)
    sources = [arrival.source for arrival in sink.arrivals()]
    assert min(sources.count("127.0.1.1"), sources.count("127.0.1.2")) >= 15, sources


def test_a_message_for_several_domains_gets_a_disposition_for_each_recipient(serve_acme: Serve) -> None:
    port, engine = serve_acme([{"at": "rcpt", "rcpt": "no@one.example", "reply": "550 5.1.1 no such user"}])
    rcpts = ["a@one.example", "no@one.example", "b@one.example", "c@two.example"]
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as session:
        session.sendmail("news@acme.example", rcpts, make_message("news@acme.example", rcpts[0], "several"))
    found = {event["recipient"]: event for event in wait_final(engine, 5)}
    assert {rcpt: found[rcpt]["event"] for rcpt in rcpts} == {
        "a@one.example": "delivered",
        "no@one.example": "bounced",
        "b@one.example": "delivered",
        "c@two.example": "delivered",
    }
    assert found["no@one.example"]["reply"]["code"] == 550
    assert found["news@acme.example"]["event"] == "delivered"  # the bounce message


def test_a_bounce_message_goes_to_the_sender_from_nobody(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    """RFC 5321 section 4.5.5, RFC 3464 section 2."""
    configuration.engine["postmaster"] = "postmaster@mta.mailrail.example"
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    rule = {"at": "rcpt", "domain": "gone.example", "reply": "550 5.1.1 nobody here"}
    sink = _restart_saving(sink, [rule])
    engine = run_engine()
    inject(port, "news@acme.example", ["someone@gone.example"])
    wait_final(engine, 2)
    (bounce,) = [arrival for arrival in sink.arrivals() if arrival.is_taken]
    assert bounce.recipients == ("news@acme.example",)
    assert bounce.sender == ""
    (text,) = [path.read_text() for path in (sink.root / "saved").glob("*.eml")]
    assert "message/delivery-status" in text
    assert "Final-Recipient: rfc822; someone@gone.example" in text
    assert "Status: 5.1.1" in text
    assert "postmaster@mta.mailrail.example" in text
    sink.close()


def _restart_saving(sink: SinkProcess, rules: list[dict]) -> SinkProcess:
    options = ("--save", str(sink.root / "saved"))
    return SinkProcess(sink.root, sink.port, *sink.listen, options=options).start(rules)


def test_a_bounce_of_a_bounce_is_made_for_nobody(serve_acme: Serve) -> None:
    port, engine = serve_acme([{"at": "rcpt", "reply": "550 5.1.1 nobody here"}])
    inject(port, "news@acme.example", ["someone@gone.example"])
    bounced = wait_final(engine, 2)
    time.sleep(1.0)
    assert [event["sender"] for event in engine.events_of("bounced")] == ["news@acme.example", ""]
    assert len(bounced) == 2
    assert engine.get("/status")["counts"].get("stored", 0) == 0


# -- retries and expiry ---------------------------------------------------------------------------------


def test_deferred_mail_is_tried_again_at_its_retry_times(
    configuration: Configuration, sink: SinkProcess, serve_acme: Serve
) -> None:
    """RFC 5321 section 4.5.4.1."""
    configuration.policies += 'retry = ["500ms", "1s"]\n'
    port, engine = serve_acme([{"at": "final", "reply": "451 4.7.1 later", "times": 2, "per": "rcpt"}])
    inject(port, "news@acme.example", addresses(5, "slow.example"))
    sink.wait_messages(5)
    wait_final(engine, 5)
    by_recipient: dict[str, list[float]] = {}
    for arrival in sink.arrivals():
        by_recipient.setdefault(arrival.recipients[0], []).append(arrival.at)
    for first, second, third in by_recipient.values():
        assert 0.4 <= second - first <= 3.0
        assert 0.85 <= third - second <= 4.0
    deferred = engine.events_of("deferred")
    assert len(deferred) == 10
    assert {event["reply"]["code"] for event in deferred} == {451}
    assert sorted(event["attempt"] for event in engine.events_of("delivered")) == [3] * 5


def test_mail_that_waits_too_long_expires_and_its_sender_is_told(
    configuration: Configuration, serve_acme: Serve
) -> None:
    """RFC 5321 section 4.5.4.1."""
    configuration.policies += 'retry = ["300ms"]\n[domain."full.example"]\nexpire_after = "2s"\n'
    port, engine = serve_acme([{"at": "rcpt", "domain": "full.example", "reply": "452 4.2.2 mailbox full"}])
    inject(port, "news@acme.example", ["someone@full.example"])
    found = {event["event"]: event for event in wait_final(engine, 2)}
    assert found["expired"]["recipient"] == "someone@full.example"
    assert 1.9 <= found["expired"]["queue_s"] <= 6.0
    assert "mailbox full" in found["expired"]["reply"]["text"]
    assert "it waited for" not in found["expired"]["reply"]["text"]  # the peer said so, nothing else did
    assert found["delivered"]["recipient"] == "news@acme.example"


def test_mail_expires_while_its_destination_can_not_be_reached(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    configuration.policies += '[domain."dead.example"]\nexpire_after = "2s"\nbounce_message = false\n'
    configuration.add_customer("acme", "127.0.1.1")
    configuration.routes["dead.example"] = f"{SINK_ADDRESS}:{free_port(SINK_ADDRESS)}"
    port = configuration.add_smtp(customer="acme")
    sink.start()
    engine = run_engine()
    inject(port, "news@acme.example", addresses(3, "dead.example"))
    found = wait_final(engine, 3)
    assert {event["event"] for event in found} == {"expired"}
    assert all(event["queue_s"] <= 6.0 for event in found)


# -- reload ---------------------------------------------------------------------------------------------


def test_reload_brings_everything_and_drops_no_session(
    configuration: Configuration, sink: SinkProcess, serve_acme: Serve
) -> None:
    configuration.policies += "max_connections = 1\n"
    port, engine = serve_acme()
    inbound = smtplib.SMTP("127.0.0.1", port, timeout=10)
    inbound.ehlo("feeder.example")
    inbound.mail("news@acme.example")
    inject(port, "news@acme.example", addresses(5, "one.example"))
    sink.wait_messages(5)
    (before,) = [link.peer for link in sink.links() if link.change > 0]

    configuration.add_customer("globex", "127.0.2.1")
    configuration.vmtas.append({"name": "acme-2", "source": "127.0.1.2", "hostname": "mail2.acme.example"})
    configuration.pools["acme"]["acme-2"] = 1
    new_port = configuration.add_smtp(customer="globex")
    configuration.routes["two.example"] = f"{SINK_ADDRESS}:{free_port(SINK_ADDRESS)}"
    configuration.policies += '[domain."three.example"]\nmax_connections = 2\n'
    engine.reload()

    inbound.rcpt("late@one.example")
    code, _ = inbound.data(make_message("news@acme.example", "late@one.example", "late"))
    assert code == 250
    inbound.quit()
    inject(new_port, "news@globex.example", addresses(20, "one.example"))
    inject_in_turns(port, "news@acme.example", MANY)
    sink.wait_messages(26 + MANY)
    arrivals = sink.arrivals()
    assert {arrival.source for arrival in arrivals} == {"127.0.1.1", "127.0.1.2", "127.0.2.1"}
    assert [arrival.peer for arrival in arrivals].count(before) > 5, "the session before goes on"
    row = engine.get("/explain?domain=three.example")
    assert "three.example" in json.dumps(row)
    inject(port, "news@acme.example", ["nobody@two.example"])
    wait_until(lambda: engine.events_of("deferred"), 10, "mail for the new, dead route is deferred")

    configuration.listeners.pop()
    del configuration.routes["two.example"]
    engine.reload()
    wait_until(lambda: _is_refused(new_port), 5, "the removed listener is closed")
    assert inject(port, "news@acme.example", ["again@one.example"])
    sink.wait_messages(27 + MANY)
    assert engine.stop() == 0


def _is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except ConnectionResetError:  # it closed while we were in its queue
        return False
    except ConnectionRefusedError:
        return True
    return False


def test_reload_of_a_limit_holds_from_then_on(
    configuration: Configuration, sink: SinkProcess, serve_acme: Serve
) -> None:
    configuration.policies = '[default]\nmax_connection_rate = "unlimited"\nmax_message_rate = "20/s"\n'
    port, engine = serve_acme()
    inject(port, "news@acme.example", addresses(150, "one.example"))
    sink.wait_messages(20)
    configuration.policies = configuration.policies.replace("20/s", "50/s")
    reloaded_at = time.monotonic()
    engine.reload()
    sink.wait_messages(150, 20)
    instants = [arrival.at for arrival in sink.arrivals()]
    rest = [instant for instant in instants if instant > reloaded_at + 1.0]
    assert len(rest) > 40
    assert (len(rest) - 1) / (rest[-1] - rest[0]) > 40


def test_a_wrong_file_is_refused_by_name_and_nothing_changes(
    configuration: Configuration, sink: SinkProcess, serve_acme: Serve
) -> None:
    port, engine = serve_acme()
    generation = engine.generation()
    configuration.customers[0]["pool"] = "no-such-pool"
    configuration.write()
    engine.signal(signal.SIGHUP)
    wait_until(lambda: "reload refused" in engine.log_tail(), 10, "refusal in the log")
    assert re.search(r"mailrail\.toml:\d+.*no-such-pool", engine.log_tail())
    assert "error" in engine.post("/reload", {})
    assert engine.generation() == generation
    inject(port, "news@acme.example", ["someone@one.example"])
    sink.wait_messages(1)


# -- stop, drain, shard count -----------------------------------------------------------------------------


def test_a_stop_lets_transactions_finish_and_keeps_the_rest(
    configuration: Configuration, sink: SinkProcess, run_engine: Run, serve_acme: Serve
) -> None:
    configuration.policies += "max_connections = 2\n"
    port, engine = serve_acme([{"at": "final", "delay_s": 0.5}])
    sent = inject(port, "news@acme.example", addresses(12, "one.example"))
    sink.wait_messages(2)
    began = time.monotonic()
    assert engine.stop() == 0
    assert time.monotonic() - began < 4.0
    first_run = sink.count()
    assert len(engine.events_of("delivered")) == first_run < 12
    sink.use_rules([])
    engine = run_engine()
    sink.wait_messages(12)
    taken = copies(sink.arrivals())
    assert sorted(test_id for test_id, _ in taken) == sorted(sent)
    assert all(len(instants) == 1 for instants in taken.values())


def test_a_second_signal_ends_at_once(
    configuration: Configuration, sink: SinkProcess, serve_acme: Serve
) -> None:
    configuration.engine["grace"] = "30s"
    port, engine = serve_acme([{"at": "final", "delay_s": 20}])
    inject(port, "news@acme.example", ["someone@one.example"])
    wait_until(lambda: sink.ask({"do": "count"})["open"], 10, "a session")
    time.sleep(0.3)
    engine.signal(signal.SIGTERM)
    time.sleep(0.3)
    assert engine.returncode is None
    engine.signal(signal.SIGTERM)
    assert engine.wait_ended(3) == 1


def test_what_a_stop_cuts_off_is_told_of_as_uncertain_and_counted(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    """The peer answers the dot after the grace: it has the message, and gets it again."""
    configuration.engine["grace"] = "1s"
    configuration.policies += 'retry = ["1s"]\n'
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    sink.start([{"at": "final", "delay_s": 3, "times": 1}])
    engine = run_engine()
    inject(port, "news@acme.example", ["someone@one.example"])
    wait_until(lambda: sink.ask({"do": "count"})["open"], 10, "a session")
    time.sleep(0.3)
    assert engine.stop() == 0
    (deferred,) = engine.events_of("deferred")
    assert deferred["is_uncertain"]
    assert deferred["attempt"] == 1
    engine = run_engine()
    (delivered,) = wait_final(engine, 1)
    assert (delivered["event"], delivered["attempt"]) == ("delivered", 2)
    sink.wait_messages(2)


def test_draining_refuses_new_mail_and_delivers_the_rest(sink: SinkProcess, serve_acme: Serve) -> None:
    port, engine = serve_acme([{"at": "final", "delay_s": 0.1}])
    inject(port, "news@acme.example", addresses(20, "one.example"))
    engine.post("/drain", {"on": True})
    with pytest.raises((smtplib.SMTPException, ConnectionError)) as refused:
        inject(port, "news@acme.example", ["late@one.example"])
    assert "421" in str(refused.value)
    sink.wait_messages(20)
    engine.post("/drain", {"on": False})
    inject(port, "news@acme.example", ["later@one.example"])
    sink.wait_messages(21)


def test_stores_of_a_larger_shard_count_are_drained(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    configuration.engine["shards"] = 3
    configuration.policies += 'retry = ["1s"]\n'
    configuration.add_customer("acme", *[f"127.0.1.{n}" for n in range(1, 7)])
    port = configuration.add_smtp(customer="acme")
    sink.start([{"at": "mail", "reply": "451 4.3.2 not now"}])
    engine = run_engine()
    sent = inject_in_turns(port, "news@acme.example", 300)

    def owners() -> set[int]:
        return {event.get("shard", 0) for event in engine.events_of("deferred")}

    wait_until(
        lambda: owners() == {0, 1, 2} and len(engine.events_of("deferred")) > 300, 10, "mail in all stores"
    )
    assert engine.stop() == 0
    configuration.engine["shards"] = 1
    sink.use_rules([])
    engine = run_engine()
    sink.wait_messages(300, 30)
    taken = copies(sink.arrivals())
    assert sorted(test_id for test_id, _ in taken) == sorted(sent)
    assert all(len(instants) == 1 for instants in taken.values())

    def left() -> list[str]:
        return sorted(each.name for each in configuration.data_dir.glob("shard-*") if each.name != "shard-0")

    wait_until(lambda: engine.log_file.read_text().count("left store is empty") == 2, 10, "empty stores")
    assert engine.stop() == 0
    assert left() == ["shard-1", "shard-2"], "they are asked which ids they have taken, for a day"
    assignment = configuration.data_dir / "assignment.json"
    kept = json.loads(assignment.read_text())
    kept["recounted_at"] -= 24 * 3600
    assignment.write_text(json.dumps(kept))
    engine = run_engine()
    wait_until(lambda: not left(), 10, "the stores of shards 1 and 2 are set aside")
    assert engine.stop() == 0


# -- bad luck -----------------------------------------------------------------------------------------


def test_the_engine_runs_under_an_unprivileged_uid(
    configuration: Configuration, sink: SinkProcess, run_engine: Run, root: Path
) -> None:
    need_root("become another user")
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    os.chmod(root, 0o755)
    data = root / "data"
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)
    sink.start()
    engine = run_engine(prefix=as_nobody())
    inject(port, "news@acme.example", addresses(10, "one.example"))
    sink.wait_messages(10)
    assert engine.stop() == 0
    files = [path for path in data.rglob("*") if path.is_file()]
    assert files
    for path in files:
        found = path.stat()
        assert found.st_uid == NOBODY
        assert not found.st_mode & 0o007, f"{path} is open to others"


def test_a_data_directory_of_somebody_else_is_refused_by_name(
    configuration: Configuration, run_engine: Run, root: Path
) -> None:
    need_root("become another user")
    configuration.add_customer("acme", "127.0.1.1")
    configuration.add_smtp(customer="acme")
    os.chmod(root, 0o755)
    (root / "data").mkdir(mode=0o700)
    engine = run_engine(wait=False, prefix=as_nobody())
    assert engine.wait_ended(10) == 1
    assert f"{root}/data" in engine.log_tail()
    assert "Traceback" not in engine.log_tail()


def test_loopback_is_never_connected_to_unless_a_route_names_it(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    configuration.add_customer("acme", "127.0.1.1")
    configuration.routes = {"ok.example": f"{SINK_ADDRESS}:{sink.port}"}
    configuration.policies += f"port = {sink.port}\n"
    port = configuration.add_smtp(customer="acme")
    sink.start()
    engine = run_engine()
    inject(port, "news@acme.example", [f"someone@[{SINK_ADDRESS}]", "someone@ok.example"])
    wait_until(lambda: engine.events_of("deferred", "bounced"), 10, "a disposition for the literal")
    sink.wait_messages(1)
    assert {arrival.recipients for arrival in sink.arrivals()} <= {
        ("someone@ok.example",),
        ("news@acme.example",),
    }
    (event,) = [each for each in engine.events_of("deferred", "bounced") if "[" in each["recipient"]]
    assert event["event"] == "bounced"
    assert "no address that may be connected to" in event["reply"]["text"]


def test_a_delivery_on_which_a_shard_died_twice_is_held_as_poison(
    configuration: Configuration, sink: SinkProcess, serve_acme: Serve
) -> None:
    configuration.engine["shards"] = 1
    configuration.policies += 'retry = ["1s"]\n'
    port, engine = serve_acme([{"at": "rcpt", "rcpt": "bad@one.example", "reply": "451 4.3.0 later"}])
    inject(port, "news@acme.example", ["bad@one.example"])
    event = wait_until(lambda: engine.events_of("deferred"), 10, "it is deferred")[0]
    key = bytes.fromhex(event["id"]) + bytes(2)
    for _ in range(2):
        (pid,) = engine.shard_pids()
        # What a shard leaves that dies within a step: the key in its step file, a death of its own.
        with (configuration.data_dir / "shard-0" / "step").open("r+b") as step:
            step.write(key)
        os.kill(pid, signal.SIGABRT)
        wait_until(lambda pid=pid: pid not in engine.shard_pids(), 5, "the shard is gone")
        wait_until(engine.shard_pids, 10, "its successor")
        engine.wait_up()
    row = wait_until(
        lambda: [each for each in engine.get("/messages")["messages"] if each["held"]], 5, "it is held"
    )[0]
    assert row["id"] == event["id"]
    assert row["held"] == "poison"
    sink.use_rules([])
    inject(port, "news@acme.example", ["good@one.example"])
    sink.wait_messages(1)
    time.sleep(2.5)
    assert [arrival.recipients for arrival in sink.arrivals() if arrival.is_taken] == [("good@one.example",)]


def test_a_second_engine_on_the_same_data_directory_is_refused(
    configuration: Configuration, serve_acme: Serve
) -> None:
    _, first = serve_acme()
    configuration.listeners = []
    second = EngineProcess(configuration)
    configuration.add_smtp(customer="acme")
    second.log_file = configuration.root / "second.log"
    try:
        second.start(wait=False)
        assert second.wait_ended(20) == 1
    finally:
        second.close()
    assert f"another engine uses it (process {first.pid})" in second.log_tail()
    assert first.stop() == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c.customers[0].update(pool="none"), "none"),
        (lambda c: c.vmtas[0].update(source="not-an-address"), "not-an-address"),
        (lambda c: c.engine.update(shrads=3), "shards"),
        (lambda c: setattr(c, "policies", "[default]\nmax_connections = 0\n"), "max_connections"),
        (lambda c: setattr(c, "policies", "[default]\nnonsense = 1\n"), "nonsense"),
        (
            lambda c: c.listeners.append(
                {"protocol": "socket", "path": f"/tmp/{'x' * 120}", "customer": "acme"}
            ),
            "107",
        ),
    ],
)
def test_a_bad_configuration_ends_a_start_with_status_1(
    configuration: Configuration, run_engine: Run, change: Callable[[Configuration], None], expected: str
) -> None:
    configuration.add_customer("acme", "127.0.1.1")
    configuration.add_smtp(customer="acme")
    change(configuration)
    engine = run_engine(wait=False)
    assert engine.wait_ended(10) == 1
    text = engine.log_tail()
    assert expected in text
    assert "Traceback" not in text
    assert re.search(r"\.toml:\d+", text), text
    assert not configuration.data_dir.exists()


def test_a_full_disk_is_452_and_deliveries_go_on(
    configuration: Configuration, sink: SinkProcess, run_engine: Run, root: Path
) -> None:
    need_root("mount a file system")
    mount = root / "small"
    mount.mkdir()
    configuration.engine |= {"data_dir": str(mount / "data"), "min_free_disk": "8MiB", "shards": 1}
    configuration.policies += 'retry = ["1s"]\n'
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    sink.start([{"at": "mail", "reply": "451 4.3.2 not now"}])
    script = f'mount -t tmpfs -o size=64m tmpfs {mount} && exec "$@"'
    unshare = shutil.which("unshare")
    assert unshare
    engine = run_engine(wait=False, prefix=[unshare, "-m", "sh", "-c", script, "sh"])
    _wait_greeting(port, engine)
    code = 250
    accepted = 0
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as session:
        session.ehlo("feeder.example")
        while code == 250:
            session.mail("news@acme.example")
            session.rcpt(f"user{accepted}@one.example")
            message = make_message("news@acme.example", "x@one.example", f"full-{accepted}", 200_000)
            code, text = session.data(message)
            accepted += code == 250
            assert accepted < 400
        assert code == 452
        assert b"4.3.1" in text
        assert accepted > 50
        sink.use_rules([])
        sink.wait_messages(accepted, 20)

    wait_until(lambda: _accepts(port), 10, "room again once mail has left")
    sink.wait_messages(accepted + 1)
    taken = copies(sink.arrivals())
    assert len(taken) == accepted + 1
    assert engine.stop() == 0


def _accepts(port: int) -> bool:
    time.sleep(0.2)
    try:
        return bool(inject(port, "news@acme.example", ["again@one.example"]))
    except (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused):
        return False


def _wait_greeting(port: int, engine: EngineProcess) -> None:
    def greets() -> bool:
        assert engine.returncode is None, engine.log_tail()
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as link:
                link.settimeout(2)
                return link.recv(100).startswith(b"220")
        except OSError:
            return False

    wait_until(greets, 15, "a greeting")


def test_no_client_waits_for_a_greeting_while_a_shard_is_down(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    configuration.add_customer("acme", "127.0.1.1", "127.0.1.2")
    port = configuration.add_smtp(customer="acme")
    sink.start()
    engine = run_engine()
    waits: list[float] = []
    is_over = threading.Event()

    def knock() -> None:
        while not is_over.is_set():
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", port), 5) as link:
                link.settimeout(5)
                if link.recv(100):  # a connection that died with its shard is no wait
                    waits.append(time.monotonic() - began)

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        for _ in range(3):
            os.kill(next(iter(engine.shard_pids())), signal.SIGKILL)
            time.sleep(1.5)
    finally:
        is_over.set()
        thread.join(10)
    assert len(waits) > 100
    assert max(waits) < 1.0


def test_cli_tells_the_truth_about_a_running_engine(configuration: Configuration, serve_acme: Serve) -> None:
    _, engine = serve_acme()

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "engine", *words, "-c", str(configuration.file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    assert ask("check").returncode == 0
    status = ask("status", "--json")
    assert status.returncode == 0
    assert json.loads(status.stdout)["generation"] == engine.generation()
    configuration.customers[0]["pool"] = "none"
    configuration.write()
    refused = ask("reload")
    assert refused.returncode == 1
    assert "none" in refused.stdout + refused.stderr
    assert ask("check").returncode == 1
