"""Too many recipients for one transaction, told from a mailbox that is full; both may be a 452.

Who is refused because of the others gets another transaction at once, and no attempt is counted. It ends: a
transaction counts as crowded only where the peer has taken a recipient in it, and that one is settled.

Owns: which replies to RCPT say that.
Never: settles anybody, sends anything.
Source: RFC 5321 section 4.5.3.1.10 (452, and 552 by mistake), RFC 3463 section 3.6 (X.5.3).
"""

from __future__ import annotations

from engine.core.reply import Reply
from engine.smtp.client import Outcome

_CODES = frozenset((452, 552))  # RFC 5321 section 4.5.3.1.10


def crowded_out(outcome: Outcome) -> frozenset[int]:
    """Return which recipients were refused only because there were too many, by index."""
    replies = outcome.recipients
    if len(replies) < 2 or outcome.mail is None or outcome.mail.code >= 300:
        return frozenset()
    if all(reply.code >= 300 for reply in replies):
        return frozenset()
    # Without an enhanced code: a limit, once it is reached, refuses all that follow; a full mailbox itself.
    bare = next((at for at in range(len(replies), 0, -1) if not _is_bare(replies[at - 1])), 0)
    return frozenset(at for at, reply in enumerate(replies) if at >= bare or _says_so(reply))


def limit_seen(outcome: Outcome) -> int:
    """Return how many recipients the peer takes in a transaction, where it has said so; else 0."""
    if not crowded_out(outcome):
        return 0
    return sum(reply.code < 300 for reply in outcome.recipients)


def _says_so(reply: Reply) -> bool:
    return reply.code >= 400 and reply.enhanced[1:] == ".5.3"


def _is_bare(reply: Reply) -> bool:
    return reply.code in _CODES and not reply.enhanced
