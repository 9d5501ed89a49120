"""line: whose time has run out. What it means for transactions is in test_session."""

from __future__ import annotations

from engine.delivery.line import Line, session_timeouts, within_limits
from engine.net.extensions import NO_EXTENSIONS, parse_extensions
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
    line = Waiting(POLICY, NO_EXTENSIONS)
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


def test_limits_of_the_peer_hold_under_a_new_policy_too() -> None:
    """RFC 9422 section 4."""

    async def main() -> None:
        line = Waiting(POLICY, parse_extensions("LIMITS MAILMAX=3"))
        line.use_policy(OTHER)
        assert line._policy.max_messages_per_connection == 3

    run_virtually(main())


def test_there_is_a_timer_for_whatever_is_waited_for() -> None:
    """RFC 5321 section 4.5.3.2."""
    assert session_timeouts(POLICY)["final"] == 600.0
    assert session_timeouts(OTHER)["mail"] == 7.0


def test_limits_of_the_peer_hold_where_they_are_smaller() -> None:
    """RFC 9422 4: no more transactions in a session, no more recipients in one, than the server takes."""
    text = "[default]\nmax_messages_per_connection = 10\nmax_recipients_per_message = 20"
    policy = make_policies(text).effective(Destination("x", "site", "", ""))
    assert within_limits(policy, parse_extensions("LIMITS RCPTDOMAINMAX=1")) is policy
    smaller = within_limits(policy, parse_extensions("LIMITS MAILMAX=3 RCPTMAX=50"))
    assert smaller.max_messages_per_connection == 3
    assert smaller.max_recipients_per_message == 20
