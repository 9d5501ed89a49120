"""Commands that are none of ours: which of them are no SMTP at all.

Owns: by what HTTP, SSH and TLS are known in a first line; what unknown commands are told.
Never: ends a session.
Source: RFC 5321 sections 4.2.4 (502) and 7.8.
"""

from __future__ import annotations

from engine.core.reply import Reply, make_reply

# Known, and not for us (RFC 5321 section 4.2.4: 502).
_UNIMPLEMENTED = frozenset(b"EXPN ETRN TURN ATRN SEND SOML SAML BURL".split())
_STRANGERS = frozenset(b"GET POST PUT HEAD DELETE OPTIONS CONNECT PATCH TRACE PROPFIND PROXY PRI".split())
TLS_HELLO = b"\x16"  # first octet of a TLS record with a handshake in it


def is_stranger(command: bytes) -> bool:
    """Return whether this is no SMTP but HTTP (a field of its header, too), SSH or TLS."""
    verb = command.partition(b" ")[0].upper()
    return verb in _STRANGERS or verb[-1:] == b":" or verb[:4] == b"SSH-" or command[:1] == TLS_HELLO


def unknown(command: bytes) -> Reply:
    """Return the reply to a command that is none of ours."""
    if command[:4].upper() in _UNIMPLEMENTED and command[4:5] in (b"", b" "):
        return make_reply(502, "5.5.1", "Command not implemented")
    return make_reply(500, "5.5.2", "Command not recognized")
