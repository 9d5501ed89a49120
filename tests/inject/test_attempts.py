"""How often passwords may be tried."""

from __future__ import annotations

from engine.inject.attempts import (
    MAX_EXPORTED,
    MAX_FAILURES_PER_ADDRESS,
    MAX_FAILURES_PER_USER,
    MAX_WATCHED,
    WINDOW_S,
    Attempts,
)


def fail(attempts: Attempts, peer: str, user: str, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        attempts.begin(peer, user, now)


def test_failures_of_an_address_are_bounded_over_all_users() -> None:
    attempts = Attempts()
    for number in range(MAX_FAILURES_PER_ADDRESS):
        assert attempts.limit("192.0.2.1", "ann", 0.0) == ""
        fail(attempts, "192.0.2.1", f"user{number}", 1)
    assert attempts.limit("192.0.2.1", "ann", 0.0) == "address"
    assert attempts.limit("192.0.2.2", "ann", 0.0) == ""
    assert attempts.limit("192.0.2.1", "ann", WINDOW_S) == ""


def test_failures_for_a_user_are_bounded_over_all_addresses() -> None:
    attempts = Attempts()
    for number in range(MAX_FAILURES_PER_USER):
        fail(attempts, f"192.0.2.{number}", "ann", 1)
    assert attempts.limit("198.51.100.1", "ann", 0.0) == "user"
    assert attempts.limit("198.51.100.1", "bob", 0.0) == ""


def test_nobody_locks_a_user_out_of_where_he_has_logged_in() -> None:
    attempts = Attempts()
    attempts.begin("198.51.100.1", "ann", 0.0)
    attempts.succeed("198.51.100.1", "ann", 0.0)
    for number in range(MAX_FAILURES_PER_USER):
        fail(attempts, f"192.0.2.{number}", "ann", 1)
    assert attempts.limit("198.51.100.1", "ann", 0.0) == ""
    assert attempts.limit("198.51.100.2", "ann", 0.0) == "user"


def test_who_is_right_is_never_limited() -> None:
    attempts = Attempts()
    for _ in range(10 * MAX_FAILURES_PER_ADDRESS):
        assert attempts.limit("192.0.2.1", "ann", 0.0) == ""
        attempts.begin("192.0.2.1", "ann", 0.0)
        attempts.succeed("192.0.2.1", "ann", 0.0)


def test_tries_that_have_only_begun_count() -> None:
    """A client may open many connections and ask on all of them at once."""
    attempts = Attempts()
    fail(attempts, "192.0.2.1", "ann", MAX_FAILURES_PER_ADDRESS)
    assert attempts.limit("192.0.2.1", "bob", 0.0) == "address"
    attempts.succeed("192.0.2.1", "ann", 0.0)
    assert attempts.limit("192.0.2.1", "bob", 0.0) == ""


def test_addresses_of_one_v6_network_are_one() -> None:
    attempts = Attempts()
    for number in range(MAX_FAILURES_PER_ADDRESS):
        fail(attempts, f"2001:db8::{number:x}", f"user{number}", 1)
    assert attempts.limit("2001:db8::ffff", "ann", 0.0) == "address"
    assert attempts.limit("2001:db8:0:1::1", "ann", 0.0) == ""


def test_what_is_watched_is_bounded() -> None:
    attempts = Attempts()
    for number in range(MAX_WATCHED + 100):
        attempts.begin(f"host{number}", f"user{number}", 0.0)
        attempts.succeed(f"host{number}", f"user{number}", 0.0)
        attempts.begin(f"host{number}", f"other{number}", 0.0)
    assert len(attempts._good) == MAX_WATCHED
    assert len(attempts._addresses._counts) == MAX_WATCHED


def test_ipv4_inside_ipv6_is_that_ipv4_address():
    """RFC 4291 section 2.5.5.2: else one client had two allowances, and all of IPv4 one /64."""
    attempts = Attempts()
    for number in range(MAX_FAILURES_PER_ADDRESS):
        attempts.begin("::ffff:192.0.2.1", f"user{number}", 0.0)
    assert attempts.limit("192.0.2.1", "ann", 0.0) == "address"
    assert attempts.limit("::ffff:192.0.2.2", "ann", 0.0) == ""


def test_what_counts_is_told_to_who_counts_from_now_on() -> None:
    old, new = Attempts(), Attempts()
    fail(old, "192.0.2.1", "ann", MAX_FAILURES_PER_ADDRESS - 1, 100.0)
    fail(new, "192.0.2.1", "ann", 1, 7.0)
    new.adopt(old.export(150.0), 7.0)  # another process: its clock began anew
    assert new.limit("192.0.2.1", "bob", 7.0) == "address"
    other = Attempts()
    other.adopt(old.export(150.0), 0.0)
    fail(other, "192.0.2.1", "ann", 1)
    assert other.limit("192.0.2.1", "bob", WINDOW_S - 51.0) == "address"
    assert other.limit("192.0.2.1", "bob", WINDOW_S - 50.0) == ""


def test_what_is_told_is_bounded() -> None:
    attempts = Attempts()
    for number in range(MAX_EXPORTED + 10):
        fail(attempts, f"addr{number}", "ann", 1)
    fail(attempts, "worst", "ann", 2)
    addresses, users = attempts.export(0.0)
    assert (len(addresses), len(users)) == (MAX_EXPORTED, 1)
    assert addresses[0] == ("worst", WINDOW_S, 2)
