"""Exim receives what we send: by DATA and by BDAT, in clear and under GnuTLS."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess
from tests.e2e.receivers import (
    EXIM,
    check_arrivals,
    check_refused,
    make_messages,
    needs_root,
    route_to,
    running_exim_receiver,
    send_all,
    send_with_refused,
)

pytestmark = [pytest.mark.e2e, pytest.mark.stranger("exim4-daemon-light"), needs_root]
COUNT = 36


@pytest.mark.parametrize(
    ("is_chunking", "tls"),
    [(False, "opportunistic"), (True, "required"), (True, "none")],
    ids=["data", "bdat-tls-required", "bdat-in-clear"],
)
def test_exim_gets_every_message_once_and_equal(
    configuration: Configuration,
    run_engine: Callable[..., EngineProcess],
    stranger: Callable[[str], str],
    is_chunking: bool,
    tls: str,
) -> None:
    """RFC 3030 section 2, RFC 2920 section 3.1, RFC 3207 section 4, RFC 5321 section 4.5.2."""
    stranger(EXIM)
    with running_exim_receiver(is_chunking=is_chunking) as receiver:
        port = route_to(configuration, receiver, tls)
        engine = run_engine()
        messages = make_messages(COUNT)
        send_all(port, messages)
        check_arrivals(receiver, engine, messages)
        assert engine.stop() == 0  # else Exim waits for its open sessions
        taken = [line for line in receiver.log().splitlines() if " <= " in line]
        assert len(taken) == COUNT
        assert all((" K " in line) == is_chunking for line in taken), taken  # Exim's mark for CHUNKING
        assert all((" X=TLS" in line) == (tls != "none") for line in taken), taken


@pytest.mark.parametrize("is_chunking", [False, True], ids=["data", "bdat"])
def test_exim_refuses_recipients_and_keeps_step_with_two_outstanding(
    configuration: Configuration,
    run_engine: Callable[..., EngineProcess],
    stranger: Callable[[str], str],
    is_chunking: bool,
) -> None:
    """RFC 2920 section 3.1, RFC 3030 section 2: a refused RCPT, or all of them, hits only its own message."""
    stranger(EXIM)
    configuration.policies += "bounce_message = false\n"
    with running_exim_receiver(is_chunking=is_chunking) as receiver:
        port = route_to(configuration, receiver, "opportunistic")
        engine = run_engine()
        messages = make_messages(COUNT)
        refused = send_with_refused(port, messages)
        check_refused(receiver, engine, messages, refused)
        assert engine.stop() == 0
