"""What is done about refusals: nothing, a mode of less, or the engine's adaptive limits.

Owns: back-off mode, as PowerMTA has it. The adaptive limits are the engine's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.core.reply import Reply
from engine.core.units import Rate
from engine.delivery.adapting import sign_of
from engine.queue.adaptive import Adaptive
from engine.queue.ceilings import Ceiling
from engine.queue.path import Path

# PowerMTA: backoff-to-normal-after defaults to an hour; backoff-max-msg-rate is the operator's, here a tenth.
BACKOFF_S = 3600.0
BACKOFF_SHARE = 0.1

Classify = Callable[[Reply], str]


class Strategy(Protocol):
    """Hears what the driver sees."""

    def begin(self, path: Path, now: float) -> None: ...
    def taken(self, path: Path, now: float) -> None: ...
    def refused(self, path: Path, reply: Reply, now: float) -> None: ...
    def not_let_in(self, path: Path, reply: Reply, now: float) -> None: ...
    def let_in(self, path: Path, now: float) -> None: ...
    def tick(self, path: Path, now: float) -> None: ...


class Fixed:
    """The policy's limits and nothing else."""

    def __init__(self, classify: Classify) -> None:
        self._classify = classify

    def begin(self, path: Path, now: float) -> None:
        pass

    def taken(self, path: Path, now: float) -> None:
        pass

    def refused(self, path: Path, reply: Reply, now: float) -> None:
        pass

    def not_let_in(self, path: Path, reply: Reply, now: float) -> None:
        pass

    def let_in(self, path: Path, now: float) -> None:
        pass

    def tick(self, path: Path, now: float) -> None:
        pass


class Backoff(Fixed):
    """A reply that matches turns back-off mode on; an hour later it is off."""

    def __init__(self, classify: Classify) -> None:
        super().__init__(classify)
        self._until = 0.0

    def refused(self, path: Path, reply: Reply, now: float) -> None:
        if sign_of(reply, self._classify(reply)) and now >= self._until:
            normal = path.policy.max_message_rate
            assert normal is not None
            rate = Rate(max(1, int(normal.count * BACKOFF_SHARE * 60)), normal.window_s * 60)
            path.set_ceiling(Ceiling("backoff", "back-off mode", 1, rate))
            self._until = now + BACKOFF_S

    not_let_in = refused

    def tick(self, path: Path, now: float) -> None:
        if self._until and now >= self._until:
            path.clear_ceiling("backoff")
            self._until = 0.0


class Learning(Fixed):
    """The engine's: delivery.adapting without its log and its metrics."""

    def begin(self, path: Path, now: float) -> None:
        path.limits.learned = Adaptive(now)
        path.limits.bound(path.limits.learned.ceiling)

    def _bound(self, path: Path, is_changed: bool) -> None:
        if is_changed and path.limits.learned is not None:
            path.limits.bound(path.limits.learned.ceiling)

    def taken(self, path: Path, now: float) -> None:
        learned = path.limits.learned
        assert learned is not None
        self._bound(path, learned.taken(now, path.policy.max_connections))

    def refused(self, path: Path, reply: Reply, now: float) -> None:
        learned = path.limits.learned
        assert learned is not None
        sign = sign_of(reply, self._classify(reply))
        if sign == "too fast":
            self._bound(path, learned.too_fast(now))
        elif sign == "connection":
            self._bound(path, learned.troubled(now, path.limits.sessions - 1))
        elif sign:
            self._bound(path, learned.unclear(now))

    def not_let_in(self, path: Path, reply: Reply, now: float) -> None:  # noqa: ARG002
        learned, others = path.limits.learned, path.limits.sessions
        assert learned is not None
        if others:
            self._bound(path, learned.troubled(now, others))

    def let_in(self, path: Path, now: float) -> None:
        learned = path.limits.learned
        assert learned is not None
        self._bound(path, learned.opened(now, path.limits.sessions))
