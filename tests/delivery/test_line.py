"""line: whose time has run out. What it means for transactions is in test_session."""

from __future__ import annotations

from engine.delivery.line import Line, session_timeouts
from engine.policy.model import Destination
from tests.fakes.delivery_rig import make_policies
from tests.fakes.virtual_loop import run_virtually
from tests.fakes.wire import ManualTransport

POLICY = make_policies().effective(Destination("x", "site", "", ""))
OTHER = make_policies('[default]\nmail_timeout = "7s"').effective(Destination("x", "site", "", ""))


class Waiting(Line):
    """A line that waits for the reply to MAIL."""

    reasons: list[str]

    @property
    def waiting_for(self) -> str | None:
        return "mail"

    @property
    def phase(self) -> str:
        return "mail"

    def lose(self, reason: str) -> None:
        self.reasons.append(reason)


def make_line() -> Waiting:
    line = Waiting(POLICY)
    line.reasons = []
    line.transport = ManualTransport()
    return line


def test_a_peer_that_takes_some_of_it_is_given_time_for_the_rest() -> None:
    """RFC 5321 section 4.5.3.2.5: the timer is for each block."""

    async def main() -> None:
        line = make_line()
        line.transport.unsent_bytes = 500  # type: ignore[attr-defined]
        line.pause_writing()
        line.transport.unsent_bytes = 400  # type: ignore[attr-defined]
        line.check_deadline(line.deadline)
        assert not line.reasons
        line.check_deadline(line.deadline)
        assert line.reasons == ["timed out waiting for mail"]

    run_virtually(main())


def test_a_new_policy_brings_its_own_timers() -> None:
    async def main() -> None:
        line = make_line()
        line.use_policy(OTHER)
        line.resume_writing()
        assert line.deadline == line.now + 7.0

    run_virtually(main())


def test_there_is_a_timer_for_whatever_is_waited_for() -> None:
    """RFC 5321 section 4.5.3.2."""
    assert session_timeouts(POLICY)["final"] == 600.0
    assert session_timeouts(OTHER)["mail"] == 7.0
