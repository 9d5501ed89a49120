"""Every path of this shard, with the limits that vmtas of one source address share.

What was spent goes by address, not by name: a vmta that is renamed, or gets the address of another, finds
what the peer has counted of that address. Vmtas that share an address count together in all of theirs.

Owns: paths by (vmta, destination, customer section); shared limits by (addresses, destination);
caps per vmta; which vmtas are held.
Never: opens sessions; decides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

import msgspec

from engine.policy.fold import PolicySet
from engine.policy.model import Destination, Policy
from engine.queue.adaptive import Adaptive, AdaptiveState
from engine.queue.assignment import counted_addresses
from engine.queue.ceilings import Ceiling
from engine.queue.limits import RateState
from engine.queue.path import Cap, Hold, Path, PathLimits
from engine.settings.model import VirtualMTA

Addresses = tuple[str, ...]


class Spent(msgspec.Struct, frozen=True, array_like=True):
    """What some addresses that count together have spent at one destination; `exported_at` is Unix UTC."""

    addresses: Addresses
    destination: str
    exported_at: float
    states: list[RateState]
    learned: AdaptiveState | None = None  # of the peer


encode_spent = msgspec.msgpack.Encoder().encode
decode_spent = msgspec.msgpack.Decoder(list[Spent]).decode


class PathTable:
    """The paths of the vmtas that this shard owns."""

    def __init__(self, policies: PolicySet, shard_caps: tuple[Cap, ...], clock: Callable[[], float]) -> None:
        self.policies = policies
        self.paths: dict[tuple[str, Destination, str], Path] = {}
        self.vmtas: dict[str, VirtualMTA] = {}
        self._addresses: dict[str, Addresses] = {}  # of vmtas: those in which they count
        self._limits: dict[tuple[Addresses, str], PathLimits] = {}
        self._vmta_caps: dict[str, Cap] = {}
        self._shard_caps = shard_caps
        self._holds: dict[str, dict[str, Hold]] = {}
        self._clock = clock
        self._since: dict[str, float] = {}  # before which nothing is known of what was spent
        self._quiet_until = 0.0
        self.on_new: Callable[[Path, Destination], None] | None = None  # a path was made
        self.first_ceiling: Ceiling | None = None  # of limits that nothing was delivered in yet

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
        self._addresses = counted_addresses({name: row.addresses for name, row in self.vmtas.items()})
        # What no vmta counts in any more stays while it is spent: sessions may be closing there yet, and
        # another vmta may get the address. What another shard takes over goes by `drop_limits`.
        owned, now = set(self._addresses.values()), self._clock()
        self._limits = {
            key: limits
            for key, limits in self._limits.items()
            if key[0] in owned or not limits.is_unspent(now)
        }

    def disown(self, names: Iterable[str]) -> list[Path]:
        """Forget vmtas that another shard takes over; return their paths."""
        gone = set(names)
        paths = [path for path in self.paths.values() if path.vmta in gone]
        for path in paths:
            path.leave()
        self.paths = {key: path for key, path in self.paths.items() if path.vmta not in gone}
        for name in gone:
            self.vmtas.pop(name, None)
            self._holds.pop(name, None)
            if name in self._vmta_caps and not self._vmta_caps[name].in_use:
                del self._vmta_caps[name]
            self._since.pop(name, None)
        return paths

    def limits_of(self, names: Iterable[str]) -> set[PathLimits]:
        """Return all limits in which these vmtas count, or have counted until `disown`."""
        groups = self._groups_of(names)
        return {limits for key, limits in self._limits.items() if key[0] in groups}

    def drop_limits(self, names: Iterable[str]) -> None:
        """Forget what these vmtas' addresses have spent: their next owner counts on from here."""
        groups = self._groups_of(names)
        self._limits = {key: limits for key, limits in self._limits.items() if key[0] not in groups}

    def _groups_of(self, names: Iterable[str]) -> set[Addresses]:
        return {self._addresses[name] for name in names if name in self._addresses}

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
            if self.on_new is not None:
                self.on_new(path, destination)
        return path

    def policy_of(self, path: Path) -> Policy:
        """Return all of a path's policy; the path itself reads only its limits."""
        assert isinstance(path.policy, Policy)
        return path.policy

    def limits(self, vmta: str, destination: str) -> PathLimits:
        """Return what the peer counts of that vmta's source address towards a destination."""
        key = (self._addresses[vmta], destination)
        limits = self._limits.get(key)
        if limits is None:
            limits = self._limits[key] = PathLimits(self._since[vmta], self._quiet_until)
            limits.ceiling = self.first_ceiling
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
                path.leave()
                forgotten(path)
            else:
                in_use.add((self._addresses[path.vmta], path.destination))
        for group in [each for each in self._limits if each not in in_use]:
            if self._limits[group].is_unspent(now):
                del self._limits[group]

    def export_limits(
        self, names: Iterable[str], now: float, unix_now: float, over_s: float = 0.0, ahead_s: float = 0.0
    ) -> list[Spent]:
        """Return what these vmtas' addresses have spent, for their next owner or (long windows) the disk.

        What may be spent in the next `ahead_s` counts as spent, so that a crash before the next export
        loses nothing.
        """
        groups = self._groups_of(names)
        return [
            Spent(group, destination, unix_now, limits.export(now, unix_now, over_s, ahead_s), learned)
            for (group, destination), limits, learned in self._learned(groups, now, unix_now)
            if not over_s or learned is not None or limits.longest_window_s > over_s
        ]

    def _learned(
        self, groups: Collection[Addresses], now: float, unix_now: float
    ) -> Iterator[tuple[tuple[Addresses, str], PathLimits, AdaptiveState | None]]:
        for key, limits in self._limits.items():
            if key[0] in groups:
                learned = limits.learned
                yield key, limits, learned.export(now, unix_now) if learned is not None else None

    def restore_limits(self, rows: Iterable[Spent], now: float, unix_now: float) -> None:
        """Take over what `export_limits` gave, of whichever owners.

        Of what several tell of one address the latest holds. Addresses that are not ours, and limits that
        are known here, are skipped.
        """
        vmta_of = {address: vmta for vmta, group in self._addresses.items() for address in group}
        latest: dict[tuple[str, str], Spent] = {}
        for row in sorted(rows, key=lambda row: row.exported_at):
            latest.update(
                {(address, row.destination): row for address in row.addresses if address in vmta_of}
            )
        found: dict[tuple[Addresses, str], dict[int, tuple[str, Spent]]] = {}
        for (address, destination), row in latest.items():
            vmta = vmta_of[address]
            key = (self._addresses[vmta], destination)
            if key not in self._limits:
                found.setdefault(key, {})[id(row)] = (vmta, row)
        for (_, destination), kept in found.items():
            for vmta, row in kept.values():
                limits = self.limits(vmta, destination)
                limits.restore(row.states, now, unix_now)
                if row.learned is not None and not row.learned.is_over(unix_now):
                    limits.learned = Adaptive.restore(row.learned, now, unix_now)
                    limits.bound(limits.learned.ceiling)
