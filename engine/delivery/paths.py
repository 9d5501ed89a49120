"""Every path of this shard, with the limits that vmtas of one source address share.

Owns: paths by (vmta, destination, customer section); shared limits by (address group, destination);
caps per vmta; which vmtas are held.
Never: opens sessions; decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from engine.policy.fold import PolicySet
from engine.policy.model import Destination, Policy
from engine.queue.assignment import group_by_source
from engine.queue.limits import RateState
from engine.queue.path import Cap, Hold, Path, PathLimits
from engine.settings.model import VirtualMTA

_decode_limits = msgspec.msgpack.Decoder(list[tuple[str, str, RateState, RateState, RateState]]).decode


class PathTable:
    """The paths of the vmtas that this shard owns."""

    def __init__(self, policies: PolicySet, shard_caps: tuple[Cap, ...], clock: Callable[[], float]) -> None:
        self.policies = policies
        self.paths: dict[tuple[str, Destination, str], Path] = {}
        self.vmtas: dict[str, VirtualMTA] = {}
        self._groups: dict[str, str] = {}
        self._limits: dict[tuple[str, str], PathLimits] = {}
        self._vmta_caps: dict[str, Cap] = {}
        self._shard_caps = shard_caps
        self._holds: dict[str, dict[str, Hold]] = {}
        self._clock = clock
        self._since: dict[str, float] = {}  # before which nothing is known of what was spent
        self._quiet_until = 0.0

    def own(self, vmtas: Iterable[VirtualMTA], quiet_until: float) -> None:
        """Take over vmtas; their first connections wait until `quiet_until` (monotonic)."""
        self._quiet_until = quiet_until
        for vmta in vmtas:
            self._since.setdefault(vmta.name, self._clock())
            self.vmtas[vmta.name] = vmta
            cap = self._vmta_caps.setdefault(
                vmta.name, Cap("max_connections of the vmta", 0, is_of_vmta=True)
            )
            cap.limit = vmta.max_connections
        sources = {name: [each for each in (row.v4, row.v6) if each] for name, row in self.vmtas.items()}
        known, self._groups = (
            self._groups,
            {member: group[0] for group in group_by_source(sources) for member in group},
        )
        # A group goes by its first name, which may have come or gone. What no vmta here counts in is
        # forgotten, or it would stand in the way of what another owner of the vmta has spent meanwhile.
        renamed = {first: self._groups[name] for name, first in known.items() if name in self._groups}
        self._limits = {
            (renamed[first], destination): limits
            for (first, destination), limits in self._limits.items()
            if first in renamed
        }

    def disown(self, names: Iterable[str]) -> list[Path]:
        """Forget vmtas that another shard takes over; return their paths."""
        gone = set(names)
        paths = [path for path in self.paths.values() if path.vmta in gone]
        self.paths = {key: path for key, path in self.paths.items() if path.vmta not in gone}
        for name in gone:
            self.vmtas.pop(name, None)
            self._holds.pop(name, None)
            self._vmta_caps.pop(name, None)
            self._since.pop(name, None)
        return paths

    def drop_limits(self, names: Iterable[str]) -> None:
        """Forget what these vmtas' addresses have spent: their next owner counts on from here."""
        groups = {self._groups[name] for name in names if name in self._groups}
        self._limits = {key: limits for key, limits in self._limits.items() if key[0] not in groups}

    def path(self, vmta: str, destination: Destination, customer: str) -> Path:
        """Return the path, made at first use."""
        key = (vmta, destination, customer)
        path = self.paths.get(key)
        if path is None:
            policy = self.policies.effective(destination, customer, vmta)
            caps = (self._vmta_caps[vmta], *self._shard_caps)
            path = Path(vmta, destination.name, customer, policy, self.limits(vmta, destination.name), caps)
            path.holds.update(self._holds.get(vmta, {}))
            self.paths[key] = path
        return path

    def policy_of(self, path: Path) -> Policy:
        """Return all of a path's policy; the path itself reads only its limits."""
        assert isinstance(path.policy, Policy)
        return path.policy

    def limits(self, vmta: str, destination: str) -> PathLimits:
        """Return what the peer counts of that vmta's source address towards a destination."""
        key = (self._groups[vmta], destination)
        limits = self._limits.get(key)
        if limits is None:
            limits = self._limits[key] = PathLimits(self._since[vmta], self._quiet_until)
        return limits

    def replace_policies(self, policies: PolicySet) -> None:
        """Give every path its policy from a new set (reload); what was counted stays."""
        self.policies = policies
        for (vmta, destination, customer), path in self.paths.items():
            path.set_policy(policies.effective(destination, customer, vmta))

    def hold_vmta(self, vmta: str, key: str, reason: str, until: float) -> None:
        """Stop every path of a vmta, those not yet made too."""
        self._holds.setdefault(vmta, {})[key] = Hold(reason, until)
        for path in self.paths.values():
            if path.vmta == vmta:
                path.hold(key, reason, until)

    def release_vmta(self, vmta: str, key: str) -> list[Path]:
        """Take a hold of a vmta back; return the paths that may go again."""
        self._holds.get(vmta, {}).pop(key, None)
        paths = [path for path in self.paths.values() if path.vmta == vmta]
        for path in paths:
            path.release(key)
        return paths

    def held_vmtas(self) -> dict[str, dict[str, Hold]]:
        """Return the holds in force by vmta."""
        return {vmta: holds for vmta, holds in self._holds.items() if holds}

    def vmta_cap(self, vmta: str) -> Cap:
        return self._vmta_caps[vmta]

    def forget_idle(self, now: float, forgotten: Callable[[Path], None]) -> None:
        """Drop paths that nothing uses, and limits of which nothing is spent."""
        in_use = set()
        for key, path in list(self.paths.items()):
            if path.is_idle(now):
                del self.paths[key]
                forgotten(path)
            else:
                in_use.add((self._groups[path.vmta], path.destination))
        for group in [each for each in self._limits if each not in in_use]:
            if self._limits[group].is_unspent(now):
                del self._limits[group]

    def export_limits(
        self, names: Iterable[str], now: float, unix_now: float, over_s: float = 0.0, ahead_s: float = 0.0
    ) -> bytes:
        """Return what these vmtas' addresses have spent, for their next owner or (long windows) the disk.

        What may be spent in the next `ahead_s` counts as spent, so that a crash before the next export
        loses nothing.
        """
        groups = {self._groups[name]: name for name in names if name in self._groups}
        rows = [
            (groups[group], destination, *limits.export(now, unix_now, over_s, ahead_s))
            for (group, destination), limits in self._limits.items()
            if group in groups and (not over_s or limits.longest_window_s > over_s)
        ]
        return msgspec.msgpack.encode(rows)

    def restore_limits(self, state: bytes, now: float, unix_now: float) -> None:
        """Take over what `export_limits` gave; vmtas that are not ours, and limits in use, are skipped."""
        if not state:
            return
        for vmta, destination, *states in _decode_limits(state):
            if vmta in self._groups and (self._groups[vmta], destination) not in self._limits:
                for limit, kept in zip(self.limits(vmta, destination).rates, states, strict=True):
                    limit.restore(kept, now, unix_now)
