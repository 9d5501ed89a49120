"""The enhanced status code of a reply that has none: derived from its code, and from what it answers.

Only for what we write (events, bounces): rules match what a peer has said, and it has not said this.

Owns: the table, and no more precision than the code has: 550 to RCPT may be a policy, so it is X.1.0.
Never: overrules what a peer says; whether that is in the class of its code is seen in wire.
Source: RFC 5321 section 4.2.3; RFC 3463 section 3; the registry of RFC 5248; RFC 7504; RFC 7505.
"""

from __future__ import annotations

from engine.core.reply import Reply

# By code, whatever it answers.
_BY_CODE = {
    421: "4.3.2",  # the system does not accept messages now
    451: "4.3.0",
    452: "4.3.1",  # insufficient system storage; too many recipients is told apart before (delivery.crowding)
    454: "4.7.0",
    455: "4.5.4",
    500: "5.5.2",
    502: "5.5.1",
    503: "5.5.1",
    504: "5.5.4",
    521: "5.3.2",  # RFC 7504: the host never accepts mail
    530: "5.7.0",
    535: "5.7.8",
    538: "5.7.11",
    551: "5.1.6",
    555: "5.5.4",
    556: "5.1.10",  # RFC 7505: the domain doesn't
}
# By code, for what the phase tells more of: mail, rcpt, data (or content).
_BY_PHASE = {
    (450, "rcpt"): "4.2.0",
    (501, "mail"): "5.1.7",
    (501, "rcpt"): "5.1.3",
    (501, "data"): "5.5.4",
    (550, "rcpt"): "5.1.0",
    (550, "mail"): "5.7.0",
    (550, "data"): "5.7.0",
    (552, "mail"): "5.3.4",  # what SIZE announces
    (552, "rcpt"): "5.2.2",
    (552, "data"): "5.2.2",
    (553, "mail"): "5.1.7",
    (553, "rcpt"): "5.1.3",
    (554, "greeting"): "5.3.2",  # RFC 5321 section 3.1: no SMTP service here
}


def status_of(reply: Reply, phase: str) -> str:
    """Return the enhanced code of a reply to `phase`: its own, or the derived one.

    Phases: mail, rcpt, data; before those greeting, ehlo, tls, auth.
    """
    if reply.enhanced:
        return reply.enhanced
    code = reply.code
    return _BY_CODE.get(code) or _BY_PHASE.get((code, phase)) or f"{code // 100}.0.0"
