"""Scripted replies of the sink: what a peer says, to whom, how often and how late.

A script is a JSON list of rules; the first that matches answers. Fields of a rule:

    at           connect | ehlo | mail | rcpt | data | final | quit
    domain       recipient domain: exact, "*.example" or "*" (rcpt, data and final; the default is "*")
    rcpt         recipient: exact
    listen       local address of the sink, without port
    source       address of the peer
    reply        "451 4.7.1 try later"; absent: the usual answer
    times        only the first so many matches of each subject (`per`: rule | rcpt | connection)
    every        only each n-th match
    over         only what comes above so many in any `window_s` (1) seconds, each subject (`per`) by itself
    above        connect: only while more connections than so many are open from that peer
    delay_s      answer so much later than usual
    close        close after the answer (or without one when `reply` is "")
    stall        never answer

Owns: matching and counting of rules.  Never: writes to a socket.
Fails: ValueError that names the rule.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import Any

STAGES = ("connect", "ehlo", "mail", "rcpt", "data", "final", "quit")
_FIELDS = frozenset(
    (
        "at",
        "domain",
        "rcpt",
        "listen",
        "source",
        "reply",
        "times",
        "per",
        "every",
        "over",
        "window_s",
        "above",
        "delay_s",
        "close",
        "stall",
    )
)


class Rule:
    """One rule; see the module."""

    def __init__(self, fields: dict[str, Any], number: int) -> None:
        unknown = set(fields) - _FIELDS
        if unknown or fields.get("at") not in STAGES:
            raise ValueError(f"rule {number}: at must be one of {STAGES}, unknown fields {sorted(unknown)}")
        self.at: str = fields["at"]
        self.domain: str = fields.get("domain", "*").lower()
        self.rcpt: str | None = fields.get("rcpt")
        self.listen: str | None = fields.get("listen")
        self.source: str | None = fields.get("source")
        self.reply: bytes | None = _reply_bytes(fields.get("reply"))
        self.times: int = fields.get("times", 0)
        self.per: str = fields.get("per", "rule")
        self.every: int = fields.get("every", 1)
        self.over: int = fields.get("over", 0)
        self.window_s: float = fields.get("window_s", 1.0)
        self.above: int = fields.get("above", 0)
        self._let_by: defaultdict[str, deque[float]] = defaultdict(deque)
        self.delay_s: float = fields.get("delay_s", 0.0)
        self.close: bool = fields.get("close", False)
        self.stall: bool = fields.get("stall", False)
        self.matches: Counter[str] = Counter()

    def applies(self, listen: str, source: str, rcpt: str) -> bool:
        """Say whether the rule is about this subject; counts nothing."""
        if self.listen is not None and self.listen != listen:
            return False
        if self.source is not None and self.source != source:
            return False
        if self.rcpt is not None and self.rcpt != rcpt:
            return False
        return _domain_matches(self.domain, rcpt.rpartition("@")[2])

    def is_due(self, subject: str, now: float = 0.0) -> bool:
        """Count a match and say whether the rule answers it."""
        if self.over and not self._is_over(self._let_by[subject], now):
            return False
        self.matches[subject] += 1
        count = self.matches[subject]
        if self.times and count > self.times:
            return False
        return count % self.every == 0

    def _is_over(self, let_by: deque[float], now: float) -> bool:
        """Say whether so many were let by in the last window; if not, this one is."""
        while let_by and let_by[0] <= now - self.window_s:
            let_by.popleft()
        if len(let_by) >= self.over:
            return True
        let_by.append(now)
        return False


class Script:
    """The rules of one sink by stage."""

    def __init__(self, rules: list[dict[str, Any]]) -> None:
        self._by_stage: dict[str, list[Rule]] = {stage: [] for stage in STAGES}
        for number, fields in enumerate(rules, 1):
            rule = Rule(fields, number)
            self._by_stage[rule.at].append(rule)

    def find(
        self,
        stage: str,
        listen: str,
        source: str,
        rcpt: str,
        connection: str,
        now: float = 0.0,
        opened: int = 0,
    ) -> Rule | None:
        """Return the rule that answers at this stage, or None for the usual answer.

        Args:
            now: monotonic.
            opened: connections that are open from that source, this one included.
        """
        for rule in self._by_stage[stage]:
            if rule.applies(listen, source, rcpt) and (not rule.above or opened > rule.above):
                subject = {"rcpt": rcpt, "connection": connection}.get(rule.per, "")
                if rule.is_due(subject, now):
                    return rule
        return None


def load_script(path: Path) -> Script:
    """Read a script from a JSON file."""
    return Script(json.loads(path.read_text()))


def _reply_bytes(text: str | None) -> bytes | None:
    if not text:
        return None if text is None else b""
    lines = text.split("\n")
    code = lines[0][:3]
    marked = [line if number == 0 else f"{code} {line}" for number, line in enumerate(lines)]
    last = len(marked) - 1
    return "".join(
        f"{line[:3]}{' ' if number == last else '-'}{line[4:]}\r\n" for number, line in enumerate(marked)
    ).encode()


def _domain_matches(pattern: str, domain: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return domain.endswith(pattern[1:])
    return pattern == domain
