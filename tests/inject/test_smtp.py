"""SMTP listeners: who may connect, and what their sessions take of the settings."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.inject.smtp import CERTIFICATE_TICKS, SMTPListener
from engine.net.certificate import CertificateError, make_server_context
from engine.telemetry.metrics import Counters
from tests.fakes.feeds import (
    ENVELOPE,
    HELLO,
    MESSAGE,
    SMTP_SETTINGS,
    Intake,
    connect_smtp,
    make_smtp,
)
from tests.fakes.submission import write_certificate


@pytest.mark.parametrize(
    ("peer", "allow", "expected"),
    [
        ("127.0.0.1", ("127.0.0.0/8",), 220),
        ("192.0.2.1", ("127.0.0.0/8",), 554),
        ("::1", ("127.0.0.0/8", "::1/128"), 220),
        ("::ffff:192.0.2.1", ("192.0.2.0/24",), 220),
        ("::ffff:192.0.2.1", ("::ffff:192.0.2.0/120",), 220),
        ("192.0.2.1", ("::ffff:0:0/96",), 220),
        ("2001:db8::1", ("192.0.2.0/24",), 554),
        ("", ("0.0.0.0/0",), 554),
    ],
)
def test_only_allowed_networks_connect(peer: str, allow: tuple[str, ...], expected: int) -> None:
    made = make_smtp(Intake(), allow=allow)
    _, transport = connect_smtp(made, peer)
    assert transport.codes() == [expected]
    assert transport.is_closed == (expected != 220)
    assert len(made.sessions) == (expected == 220)


def test_too_many_connections_get_421_and_leave_no_trace() -> None:
    made = make_smtp(Intake(), max_connections=1)
    session, _ = connect_smtp(made)
    late, transport = connect_smtp(made)
    assert transport.codes() == [421]
    assert transport.is_closed
    late.connection_lost(None)
    session.connection_lost(None)
    _, transport = connect_smtp(made)
    assert transport.codes() == [220]


def test_refusals_and_sessions_are_counted() -> None:
    counters = Counters()
    made = SMTPListener(SMTP_SETTINGS, Intake(), counters)
    session, _ = connect_smtp(made)
    session.data_received(b"FOO\r\nFOO\r\nMAIL FROM:<>\r\n")
    snapshot = counters.snapshot()
    rows = {(name, *labels): value for name, labels, value in snapshot["counters"] + snapshot["gauges"]}
    assert rows["mailrail_refusals_total", "smtp", "500"] == 2
    assert rows["mailrail_refusals_total", "smtp", "503"] == 1
    assert rows["mailrail_inbound_sessions", SMTP_SETTINGS.name] == 1


def test_new_settings_are_for_new_sessions() -> None:
    intake = Intake()
    made = make_smtp(intake)
    session, _ = connect_smtp(made)
    made.use(msgspec.structs.replace(SMTP_SETTINGS, max_message_size_bytes=10))
    session.data_received(HELLO + ENVELOPE + MESSAGE + b".\r\n")
    assert len(intake.taken) == 1
    newer, transport = connect_smtp(made)
    newer.data_received(HELLO + ENVELOPE + MESSAGE + b".\r\n")
    assert transport.codes()[-1] == 552
    assert len(intake.taken) == 1


def test_certificate_is_looked_at_while_the_listener_serves_and_read_at_a_reload(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    made = make_smtp(Intake(), tls_certificate=certificate, tls_key=key)
    contexts = [made.tls_context]
    for _ in range(CERTIFICATE_TICKS):
        made.sweep()
    assert made.tls_context is contexts[0]
    Path(certificate).touch()
    for _ in range(CERTIFICATE_TICKS):
        made.sweep()
    assert made.tls_context is not contexts[0]
    contexts.append(made.tls_context)
    made.use(made.settings)
    assert made.tls_context not in contexts
    made.use(msgspec.structs.replace(made.settings, tls_certificate="", tls_key=""))
    assert made.tls_context is None


def test_starttls_is_offered_only_while_there_is_a_certificate_that_can_be_used(tmp_path: Path) -> None:
    made = make_smtp(Intake(), tls_certificate=str(tmp_path / "gone"), tls_key=str(tmp_path / "gone"))
    session, transport = connect_smtp(made)
    session.data_received(HELLO + b"STARTTLS\r\n")
    assert b"STARTTLS" not in transport.written
    assert transport.codes() == [220, 250, 500]


def test_key_that_the_engine_may_not_read_is_named(open_directory: Path, unprivileged: None) -> None:
    certificate, key = write_certificate(open_directory)
    Path(key).chmod(0)
    with pytest.raises(CertificateError, match=rf"can't read {key}: Permission denied"):
        make_server_context(certificate, key)
