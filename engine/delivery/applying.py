"""Reactions as paths and hosts know them: ceilings, holds, hosts that are left out.

What is in force is looked up by vmta, so that a path which is made later, or anew, knows of it as well.

Owns: under which keys a path is held or bounded by a rule.
Never: decides that something is in force (reacting does).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from engine.delivery.paths import PathTable
from engine.policy.model import Destination
from engine.queue.ceilings import Ceiling
from engine.queue.path import Path
from engine.queue.reactions import Reaction, Strength, bounds, reaching

MAX_SHOWN = 120  # characters of a reply in a reason


class Sessions(Protocol):
    """What stops sessions, open and opening."""

    def trim(self) -> None:
        """End the sessions above what paths may have."""

    def stop_opening(self, paths: Collection[Path]) -> None:
        """Stop opening sessions of these paths."""

    def leave_host(self, host: str) -> None:
        """End the sessions to a host as soon as nothing is in flight."""


class Applying:
    """Brings reactions to the paths of this shard."""

    def __init__(self, paths: PathTable, sessions: Sessions, kick: Callable[[Path], None]) -> None:
        """Args: kick: has a path asked anew what it may."""
        self._paths = paths
        self._sessions = sessions
        self._kick = kick
        self._by_vmta: dict[str, dict[str, Reaction]] = {}
        self._waiting: dict[tuple[str, str], Reaction] = {}
        self.hosts: dict[tuple[str, str], float] = {}  # (what is done, host) -> until
        self.on_waiting: Callable[[Reaction], None] | None = None  # what waits is to bounce, or no more

    def apply(self, reaction: Reaction, now: float) -> None:
        """Put a reaction in force, or as far as it is in force now."""
        reach = reaction.reach
        if reach.scope == "host":
            self.hosts[reaction.does, reach.host] = reaction.until
            if reaction.does == "skip_mx":
                self._sessions.leave_host(reach.host)
            return
        if reach.scope == "waiting":
            self._waiting[reach.destination, reach.customer] = reaction
            if self.on_waiting is not None:
                self.on_waiting(reaction)
            return
        self._by_vmta.setdefault(reach.vmta, {})[reaction.key] = reaction
        if reach.scope == "vmta":
            self._paths.hold_vmta(reach.vmta, _key(reaction), _why(reaction), reaction.until)
        paths = self._reached(reaction)
        for path, _ in paths:
            self._apply_to(path, reaction, now)
        if reaction.does == "hold" and reach.scope != "customer":
            self._sessions.stop_opening({path for path, _ in paths})
        if reaction.does == "slow":
            self._sessions.trim()
        for path, _ in paths:
            self._kick(path)

    def apply_all(self, reactions: Iterable[Reaction], now: float) -> None:
        """Bring what is in force to paths whose policy has changed."""
        for reaction in reactions:
            self.apply(reaction, now)

    def undo(self, reaction: Reaction, now: float) -> None:
        """A reaction is over: its paths may go again."""
        reach = reaction.reach
        if reach.scope == "host":
            self.hosts.pop((reaction.does, reach.host), None)
            return
        if reach.scope == "waiting":
            self._waiting.pop((reach.destination, reach.customer), None)
            if self.on_waiting is not None:
                self.on_waiting(reaction)
            return
        of_vmta = self._by_vmta.get(reach.vmta, {})
        of_vmta.pop(reaction.key, None)
        if not of_vmta:
            self._by_vmta.pop(reach.vmta, None)
        if reach.scope == "vmta":
            self._paths.release_vmta(reach.vmta, _key(reaction))
        for path, destination in self._reached(reaction):
            path.release(_key(reaction))
            path.clear_ceiling(_key(reaction))
            if reach.scope == "customer":
                path.release_customer(reach.customer)
            path.heeds_successes = bool(self.heeding(path))
            for other in reaching(of_vmta.values(), path.vmta, destination.name, destination.provider):
                self._apply_to(path, other, now)  # another may have had the same customer
            self._kick(path)

    def forget(self, vmtas: Iterable[str]) -> None:
        """These vmtas are another shard's now."""
        for vmta in vmtas:
            self._by_vmta.pop(vmta, None)

    def path_made(self, path: Path, destination: Destination, now: float) -> None:
        """Bring what is in force to a new path."""
        of_vmta = self._by_vmta.get(path.vmta)
        if of_vmta:
            for each in reaching(of_vmta.values(), path.vmta, destination.name, destination.provider):
                self._apply_to(path, each, now)

    def heeding(self, path: Path) -> list[Reaction]:
        """Return what ends by successes on a path."""
        return [
            each
            for each in self._by_vmta.get(path.vmta, {}).values()
            if each.terms.step_after and each.reach.destination == path.destination
        ]

    def bounces(self, destination: str, customer: str) -> Reaction | None:
        """Return what has a customer's mail for a destination bounce. HOT where anything does."""
        return self._waiting.get((destination, customer))

    @property
    def has_bounces(self) -> bool:
        """Whether anything that waits is to bounce."""
        return bool(self._waiting)

    def _reached(self, reaction: Reaction) -> list[tuple[Path, Destination]]:
        return [
            (path, destination)
            for (vmta, destination, _), path in self._paths.paths.items()
            if reaching((reaction,), vmta, destination.name, destination.provider)
        ]

    def _apply_to(self, path: Path, reaction: Reaction, now: float) -> None:
        key, why = _key(reaction), _why(reaction)
        if reaction.reach.scope == "customer":
            path.hold_customer(reaction.reach.customer, why, reaction.until)
        elif reaction.does == "hold":
            path.hold(key, why, reaction.until)
        else:
            policy = self._paths.policy_of(path)
            whole = Strength(policy.max_connections, policy.max_message_rate)
            found = bounds(reaction, whole, now)
            path.set_ceiling(Ceiling(key, f"rule {reaction.rule}", found.connections, found.rate))
            path.heeds_successes = path.heeds_successes or reaction.terms.step_after > 0


def _key(reaction: Reaction) -> str:
    return f"rule {reaction.key}"


def _why(reaction: Reaction) -> str:
    return f"rule {reaction.rule}: {reaction.reply[:MAX_SHOWN]}"
