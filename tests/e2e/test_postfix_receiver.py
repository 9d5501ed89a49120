"""Postfix receives what we send: by DATA and by BDAT, in clear and under TLS."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.receivers import (
    check_arrivals,
    check_refused,
    make_messages,
    needs_root,
    route_to,
    running_postfix_receiver,
    send_all,
    send_with_refused,
)

pytestmark = [pytest.mark.e2e, pytest.mark.stranger("postfix"), needs_root]
COUNT = 36
_SUMMARY = re.compile(r"disconnect from .* commands=")  # how often each command came


@pytest.mark.parametrize(
    ("is_chunking", "tls", "is_encrypted"),
    [
        (False, "opportunistic", True),
        (True, "opportunistic", True),
        (True, "required", True),
        (True, "none", False),
    ],
    ids=["data", "bdat", "bdat-tls-required", "bdat-in-clear"],
)
def test_postfix_gets_every_message_once_and_equal(
    configuration: Configuration,
    run_engine: Callable[..., EngineProcess],
    stranger: Callable[[str], str],
    is_chunking: bool,
    tls: str,
    is_encrypted: bool,
) -> None:
    """RFC 3030 section 2, RFC 2920 section 3.1, RFC 3207 section 4, RFC 5321 section 4.5.2."""
    stranger("postfix")
    with running_postfix_receiver(is_chunking=is_chunking) as receiver:
        port = route_to(configuration, receiver, tls)
        engine = run_engine()
        messages = make_messages(COUNT)
        send_all(port, messages)
        check_arrivals(receiver, engine, messages)
        assert engine.stop() == 0
        wait_until(lambda: _SUMMARY.search(receiver.log()), 10.0, "Postfix counts the commands of a session")
        used, unused = ("bdat", "data") if is_chunking else ("data", "bdat")
        summaries = [line for line in receiver.log().splitlines() if " mail=" in line]
        assert (
            sum(
                int(found[1]) for line in summaries for found in [re.search(rf" {used}=(\d+)", line)] if found
            )
            == COUNT
        )
        assert f" {unused}=" not in receiver.log()
        assert ("TLS connection established" in receiver.log()) == is_encrypted


@pytest.mark.parametrize("is_chunking", [False, True], ids=["data", "bdat"])
def test_postfix_refuses_recipients_and_keeps_step_with_two_outstanding(
    configuration: Configuration,
    run_engine: Callable[..., EngineProcess],
    stranger: Callable[[str], str],
    is_chunking: bool,
) -> None:
    """RFC 2920 section 3.1, RFC 3030 section 2: a refused RCPT, or all of them, hits only its own message."""
    stranger("postfix")
    configuration.policies += "bounce_message = false\n"
    with running_postfix_receiver(is_chunking=is_chunking) as receiver:
        port = route_to(configuration, receiver, "opportunistic")
        engine = run_engine()
        messages = make_messages(COUNT)
        refused = send_with_refused(port, messages)
        check_refused(receiver, engine, messages, refused)
        assert engine.stop() == 0
