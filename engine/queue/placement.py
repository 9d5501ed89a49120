"""Which shard a new message goes to: in proportion to the weights, here whenever that keeps them.

Each pool has an account per shard: every message placed credits each shard with its part of the
pool's weight, and debits the one that got the message. The accepting shard takes the message while
its account is not overdrawn by more than a slack; else it goes where the credit is highest. Shards
tell each other what they placed (`take_report`, `merge`), so that equal intake everywhere forwards
nothing; until a report is out the slack grows by what is not yet in it.

Owns: how far each pool is from its proportions.
Never: forwards a message, knows vmtas (weights come by shard).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SLACK = 16  # messages that a shard may be ahead of its part: a burst of these costs no forward
MAX_UNREPORTED = 16  # messages by which the slack grows at most: reports go out that often

Weights = Mapping[str, Mapping[int, float]]  # pool to shard to weight
Report = dict[str, dict[int, int]]  # pool to shard to messages


def weigh_shards(members: Mapping[str, Mapping[str, float]], assignment: Mapping[str, int]) -> Weights:
    """Return what each shard weighs in each pool.

    Args:
        members: pool to vmta to weight.
        assignment: vmta to the shard that owns it; a vmta without an owner weighs nothing.
    """
    weights: dict[str, dict[int, float]] = {}
    for pool, vmtas in members.items():
        by_shard = weights[pool] = {}
        for vmta, weight in vmtas.items():
            shard = assignment.get(vmta)
            if shard is not None and weight > 0:
                by_shard[shard] = by_shard.get(shard, 0.0) + weight
    return weights


class _Account:
    """One pool: the part, the credit and the unreported messages of each shard."""

    __slots__ = ("credits", "only", "parts", "placed", "unreported")

    def __init__(self, weights: Mapping[int, float]) -> None:
        total = sum(weights.values())
        self.parts = [(shard, weight / total) for shard, weight in sorted(weights.items())]
        self.only = self.parts[0][0] if len(self.parts) == 1 else None
        self.credits = {shard: 0.0 for shard, _ in self.parts}
        self.placed: dict[int, int] = {}
        self.unreported = 0

    def count(self, shard: int, messages: int) -> None:
        credits_ = self.credits
        for each, part in self.parts:
            credits_[each] += part * messages
        if shard in credits_:
            credits_[shard] -= messages


class Placement:
    """Places messages for one accepting shard."""

    def __init__(self, weights: Weights, local: int, slack: int = SLACK) -> None:
        """Args: local: the shard that asks; it keeps what nobody else could carry."""
        self._weights = weights
        self._local = local
        self._slack = slack
        self._down: set[int] = set()
        self._accounts = self._open_accounts()

    def place(self, pool: str) -> int:
        """Return the shard that shall own the next message of that pool. HOT."""
        account = self._accounts.get(pool)
        if account is None:
            return self._local
        if account.only is not None:
            return account.only
        credits_ = account.credits
        for shard, part in account.parts:
            credits_[shard] += part
        chosen = self._local
        if credits_.get(chosen, -1e9) <= -self._slack - account.unreported:
            chosen = max(credits_, key=credits_.__getitem__)
        credits_[chosen] -= 1.0
        account.placed[chosen] = account.placed.get(chosen, 0) + 1
        if account.unreported < MAX_UNREPORTED:
            account.unreported += 1
        return chosen

    def owner(self, pool: str) -> int | None:
        """Return another shard that is up and can carry that pool, by credit; None where there is none."""
        account = self._accounts.get(pool)
        if account is None:
            return None
        others = [shard for shard, _ in account.parts if shard != self._local]
        return max(others, key=account.credits.__getitem__, default=None)

    def take_report(self) -> Report:
        """Return what was placed since the last report, for all other shards."""
        report: Report = {}
        for pool, account in self._accounts.items():
            if account.placed:
                report[pool] = account.placed
                account.placed = {}
                account.unreported = 0
        return report

    def merge(self, report: Report) -> None:
        """Count what another shard placed."""
        for pool, placed in report.items():
            account = self._accounts.get(pool)
            if account is not None:
                for shard, messages in placed.items():
                    account.count(shard, messages)

    def set_down(self, shards: Iterable[int]) -> None:
        """From now on these shards get nothing; proportions start anew among the others."""
        down = set(shards)
        if down != self._down:
            self._down = down
            self._accounts = self._open_accounts()

    def _open_accounts(self) -> dict[str, _Account]:
        accounts = {}
        for pool, weights in self._weights.items():
            up = {shard: weight for shard, weight in weights.items() if shard not in self._down}
            if up:
                accounts[pool] = _Account(up)
        return accounts
