"""Submission from outside: users, certificates that change, load that is shed, on the whole engine."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine.inject.attempts import MAX_FAILURES_PER_ADDRESS
from tests.e2e.configuration import Configuration, free_port
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import make_message
from tests.e2e.sink_process import SinkProcess
from tests.fakes.submission import trusting, write_certificate

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(60)]

Run = Callable[..., EngineProcess]


def make_hash(password: str) -> str:
    command = [sys.executable, "-m", "engine", "password", "--json"]
    out = subprocess.run(command, input=f"{password}\n", capture_output=True, text=True, check=True).stdout
    return str(json.loads(out)["password"])


def shown(port: int) -> str:
    """Return the certificate that a listener shows, in PEM."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as sock, context.wrap_socket(sock) as tls:
        return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")


@contextlib.contextmanager
def logged_in(port: int, trusted: str, user: str, password: str) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="laptop.example") as smtp:
        smtp.starttls(context=trusting(trusted))
        smtp.login(user, password)
        yield smtp


def add_listener(configuration: Configuration, protocol: str, files: tuple[str, str], **row: Any) -> int:
    port = free_port()
    configuration.listeners.append(
        {
            "protocol": protocol,
            "listen": f"127.0.0.1:{port}",
            "tls_certificate": files[0],
            "tls_key": files[1],
        }
        | row
    )
    return port


def test_users_send_as_their_customer_over_tls_and_certificates_change_while_it_serves(
    configuration: Configuration, sink: SinkProcess, run_engine: Run, root: Path
) -> None:
    files, other = write_certificate(root), write_certificate(root, "other.example")
    first_one = Path(files[0]).read_text()
    configuration.add_customer(
        "acme", "127.0.1.1", credentials=[{"user": "ann", "password": make_hash("s3")}]
    )
    configuration.add_customer(
        "globex", "127.0.1.2", credentials=[{"user": "bob", "password": make_hash("x")}]
    )
    submission = add_listener(configuration, "submission", files)
    submissions = add_listener(configuration, "submissions", files)
    sink.start()
    engine = run_engine()

    with logged_in(submission, files[0], "ann", "s3") as smtp:
        smtp.sendmail(
            "news@acme.example", ["b@x.example"], make_message("a@acme.example", "b@x.example", "1")
        )
        with pytest.raises(smtplib.SMTPSenderRefused, match=r"customer acme may not send as"):
            smtp.sendmail(
                "news@globex.example", ["b@x.example"], make_message("a@acme.example", "b@x.example", "2")
            )
    with smtplib.SMTP_SSL("127.0.0.1", submissions, context=trusting(files[0])) as smtp:
        smtp.login("bob", "x")
        smtp.sendmail(
            "news@globex.example", ["b@x.example"], make_message("a@acme.example", "b@x.example", "3")
        )
    delivered = wait_until(lambda: len(engine.events_of("delivered")) == 2, 15.0, "both delivered")
    assert delivered
    customers = {event["customer"] for event in engine.events_of("delivered")}
    assert customers == {"acme", "globex"}

    # A pair that does not belong together refuses the reload, and the old one stays.
    kept = Path(files[1]).read_bytes()
    shutil.copy(other[1], files[1])
    engine.signal(signal.SIGHUP)
    wait_until(lambda: "reload refused" in engine.log_tail(), 15.0, "refusal of the reload")
    assert shown(submissions) == first_one
    # Renewed without a reload: found by the time of the file.
    shutil.copy(other[0], files[0])
    wait_until(lambda: shown(submissions) == Path(other[0]).read_text(), 20.0, "the new certificate")
    Path(files[1]).write_bytes(kept)
    Path(files[0]).write_text(first_one)
    engine.reload()
    assert shown(submissions) == first_one


def test_overloaded_engine_says_so_and_takes_mail_again(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    configuration.engine |= {"shards": 1, "max_inbound_connections": 3}
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    sink.start()
    engine = run_engine()
    held = [smtplib.SMTP("127.0.0.1", port) for _ in range(3)]
    reason = r"421 4\.3\.2 overloaded \(connections\), try again later"

    def is_shed() -> bool:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            return re.match(reason, sock.makefile().readline()) is not None

    wait_until(is_shed, 10.0, "421")
    assert "load is shed" in engine.log_tail()
    code, _ = held[0].docmd("MAIL FROM:<a@acme.example>") if held[0].ehlo()[0] == 250 else (0, b"")
    assert code == 421
    for each in held:
        each.close()
    wait_until(lambda: not is_shed(), 15.0, "an end of it")
    with smtplib.SMTP("127.0.0.1", port) as smtp:
        smtp.sendmail("a@acme.example", ["b@x.example"], make_message("a@acme.example", "b@x.example", "1"))


def test_wrong_passwords_are_limited_over_all_shards(configuration: Configuration, run_engine: Run) -> None:
    """However many connections and shards: as many as one engine allows, then 421; and nobody else is hit."""
    configuration.engine |= {"shards": 3}
    users = [{"user": f"u{number}", "password": make_hash("s3")} for number in range(2)]
    configuration.add_customer("acme", "127.0.1.1", credentials=users)
    port = configuration.add_smtp(allow_plaintext_auth=True)
    configuration.listeners[-1] |= {"protocol": "submission"}
    run_engine()

    def guess(number: int) -> int:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="laptop.example", timeout=30) as smtp:
            smtp.ehlo()
            secret = base64.b64encode(f"\0nobody{number % 7}\0guess".encode()).decode()
            return smtp.docmd("AUTH", f"PLAIN {secret}")[0]

    with ThreadPoolExecutor(3 * MAX_FAILURES_PER_ADDRESS) as pool:
        codes = list(pool.map(guess, range(3 * MAX_FAILURES_PER_ADDRESS)))
    assert codes.count(535) == MAX_FAILURES_PER_ADDRESS, codes
    assert codes.count(421) == 2 * MAX_FAILURES_PER_ADDRESS, codes
    with smtplib.SMTP("127.0.0.1", port, source_address=("127.0.0.9", 0)) as smtp:
        assert smtp.login("u0", "s3")[0] == 235
