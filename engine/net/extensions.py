"""What a peer offers in its EHLO reply, as one value that sessions share.

Owns: the parsed form of EHLO keywords. Thousands of sessions to peers of one make hold one object.
Never: decides which parameters a transaction uses.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

# How many different EHLO replies are kept parsed; a forgotten one is only parsed again.
_DISTINCT_REPLIES = 512
_MAX_LIMIT_DIGITS = 6  # RFC 9422 section 3


class Extensions(msgspec.Struct, frozen=True):
    """The extensions of one session. `size_limit` is 0 where the peer names none (RFC 1870).

    `mail_max` and `rcpt_max`: transactions of a session and recipients of a transaction that the peer takes
    (RFC 9422); 0 where it names no limit. RCPTDOMAINMAX binds nobody here: a transaction is for one domain.
    """

    parameters: dict[str, str]  # keyword in upper case to what stood behind it
    has_pipelining: bool = False
    has_8bitmime: bool = False
    has_chunking: bool = False
    has_smtputf8: bool = False
    has_dsn: bool = False
    has_starttls: bool = False
    size_limit: int = 0
    is_lmtp: bool = False  # it was greeted with LHLO (RFC 2033): one reply for each recipient
    mail_max: int = 0
    rcpt_max: int = 0

    def in_clear(self) -> Extensions:
        """Return what counts without TLS: REQUIRETLS says nothing there (RFC 8689 section 2)."""
        if "REQUIRETLS" not in self.parameters:
            return self
        parameters = {name: rest for name, rest in self.parameters.items() if name != "REQUIRETLS"}
        return msgspec.structs.replace(self, parameters=parameters)


NO_EXTENSIONS = Extensions({})  # what a peer that only knows HELO offers


@lru_cache(maxsize=_DISTINCT_REPLIES)
def parse_extensions(keyword_lines: str, *, is_lmtp: bool = False) -> Extensions:
    """Return the extensions in an EHLO reply.

    Args:
        keyword_lines: the reply's text without its first line (the peer's name), joined by "\\n".
            What is not a keyword is kept and never looked at.

    Source: RFC 5321 section 4.1.1.1; keywords are case-insensitive.
    """
    parameters: dict[str, str] = {}
    for line in keyword_lines.split("\n"):
        keyword, _, rest = line.strip().partition(" ")
        if keyword:
            parameters[keyword.upper()] = rest.strip()
    size = parameters.get("SIZE", "")
    return Extensions(
        parameters,
        has_pipelining="PIPELINING" in parameters,
        has_8bitmime="8BITMIME" in parameters,
        has_chunking="CHUNKING" in parameters,
        has_smtputf8="SMTPUTF8" in parameters,
        has_dsn="DSN" in parameters,
        has_starttls="STARTTLS" in parameters,
        size_limit=int(size) if size.isascii() and size.isdigit() and len(size) < 20 else 0,
        is_lmtp=is_lmtp,
        mail_max=_limit(parameters, "MAILMAX"),
        rcpt_max=_limit(parameters, "RCPTMAX"),
    )


def _limit(parameters: dict[str, str], name: str) -> int:
    """Return a limit that LIMITS names; 0 for none, and for what is no number of RFC 9422's."""
    for word in parameters.get("LIMITS", "").split():
        keyword, _, value = word.partition("=")
        if (
            keyword.upper() == name
            and value.isascii()
            and value.isdigit()
            and len(value) <= _MAX_LIMIT_DIGITS
        ):
            return int(value)
    return 0
