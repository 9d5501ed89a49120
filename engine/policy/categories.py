"""The categories that a deferral or bounce may have, and what is done about each.

Owns: the names of categories and actions; the category of each failure of our own, by its kind.
Never: reads a reply's text (classify does); knows what a category leads to (policies/default.toml says so).
"""

from __future__ import annotations

from typing import NamedTuple

from engine.core.reply import Reply

CATEGORIES = (
    "bad-mailbox",
    "bad-domain",
    "inactive-mailbox",
    "quota-issues",
    "message-too-large",
    "spam-content",
    "spam-block",
    "policy-related",
    "authentication",
    "rate-limited",
    "greylisted",
    "bad-connection",
    "no-answer-from-host",
    "relaying-issues",
    "routing-errors",
    "protocol-errors",
    "temporary-system",
    "other",
)

ACTIONS = ("retry", "retry_slower", "other_vmta", "give_up", "suppress")
_UNSURE = frozenset(("code", "own", "none"))  # which say too little of an address to suppress it
FINAL = frozenset(("give_up", "suppress"))  # the recipient bounces; after all others it is tried again

# What we say ourselves, by subject and detail of its enhanced code: each kind of failure has one of its own
# (RFC 3463 section 3). Its text holds names and errors of this host, which say nothing of the peer.
_OWN = {
    "1.2": "bad-domain",  # no such domain
    "1.10": "bad-domain",  # null MX
    "3.4": "message-too-large",  # SIZE
    "4.1": "no-answer-from-host",  # no connection
    "4.2": "bad-connection",  # lost, timed out, or out of step
    "4.3": "routing-errors",  # DNS does not answer
    "4.4": "routing-errors",  # no address that may be used
    "4.6": "routing-errors",  # MX hosts lead back here
    "4.7": "no-answer-from-host",  # too late
    "6.3": "protocol-errors",  # no 8BITMIME
    "6.7": "protocol-errors",  # no SMTPUTF8
    "7.1": "policy-related",  # a rule for replies has what waits bounce
    "7.4": "policy-related",  # TLS is required, and not offered
    "7.5": "bad-connection",  # a TLS handshake that failed, or proved nothing
    "7.10": "policy-related",  # REQUIRETLS, and no TLS that proves anything
    "7.11": "policy-related",  # AUTH without TLS
    "7.30": "policy-related",  # REQUIRETLS is not offered
}


class Verdict(NamedTuple):
    """What a reply was classified as, by which rule ("" where it was none), and what that rule went by."""

    category: str
    rule: str
    basis: str  # text | enhanced | code | own (a failure of our own) | none


class CategoryRow(NamedTuple):
    """What is done about one category."""

    temporary: str  # action after a 4xx
    permanent: str  # action after a 5xx
    patience: int  # attempts that must have ended so before a 4xx is given up or suppressed
    wait_factor: int  # of the retry curve, where the action is retry_slower

    def action(self, basis: str, *, is_permanent: bool, attempts: int) -> str:
        """Return the action after so many attempts, this one included.

        A category that follows from the codes alone leaves them the last word; a bare code suppresses none.
        """
        if is_permanent:
            if basis == "text" or self.permanent in FINAL:
                return "give_up" if self.permanent == "suppress" and basis in _UNSURE else self.permanent
            return "give_up"
        if self.temporary not in FINAL:
            return self.temporary
        return self.temporary if basis == "text" and attempts >= self.patience else "retry"


def own_verdict(reply: Reply) -> Verdict:
    """Return the category of a failure of our own, by its kind."""
    return Verdict(_OWN.get(reply.enhanced[2:], "other"), "", "own")
