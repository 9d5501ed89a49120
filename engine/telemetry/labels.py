"""Which destinations get a label of their own in the metrics.

Named providers always do. Of the others, a bounded number: a host that sends to 200,000 domains must not make
200,000 series. A label once given stays until the process ends, because a series that vanished, or moved
between its own name and "other", would look like lost mail. So they are given with growing reluctance: the
first quarter to whoever comes, the rest to destinations that prove heavier and heavier.

A path that is held may never have had traffic, and its name is what an operator needs. Such destinations
get labels of their own while they are held, from a budget of their own: 200,000 domains that can't be reached
take turns at being in back-off.

Owns: those choices, for one process.
Never: counts messages for anyone else.
"""

from __future__ import annotations

OTHER = "other"
MAX_LABELS = 100  # a shard; times customers, events and shards it is what a Prometheus server likes
CANDIDATES = 10_000  # 1 MB; who is heavier than one message in 10,000 is seen
MAX_HELD_LABELS = 100  # at a time
KEEP_HELD_S = 3600.0  # no longer held, a destination keeps its place for so long: so many new series an hour
STEPS = (1, 100, 1_000, 10_000)  # messages asked for in each quarter of the labels


class DestinationLabels:
    """Gives each destination its label: its own name, or "other"."""

    def __init__(self, providers: frozenset[str] = frozenset(), *, max_labels: int = MAX_LABELS) -> None:
        self._labels: dict[str, str] = {OTHER: OTHER}
        self._candidates: dict[str, int] = {}
        self._max_labels = max_labels
        self._given = 0
        self.name_providers(providers)

    def name_providers(self, names: frozenset[str]) -> None:
        """Give these a label each, for good: the providers of a policy, at start and at a reload."""
        for name in names:
            self._labels[name] = name

    def label(self, destination: str) -> str:
        """Return the label for one more message to this destination. HOT."""
        return self._labels.get(destination) or self._weigh(destination)

    def peek(self, destination: str) -> str:
        """Return the label as it is, without counting a message: for gauges."""
        return self._labels.get(destination, OTHER)

    def _weigh(self, destination: str) -> str:
        if self._given >= self._max_labels:
            return OTHER
        count = self._candidates.get(destination, 0) + 1
        if count >= STEPS[self._given * len(STEPS) // self._max_labels]:
            self._candidates.pop(destination, None)
            self._labels[destination] = destination
            self._given += 1
            return destination
        if count == 1 and len(self._candidates) >= CANDIDATES:
            self._forget_light()
        self._candidates[destination] = count
        return OTHER

    def _forget_light(self) -> None:
        """Halve every count and drop the ones, so that a new heavy destination finds room."""
        halved = {name: count // 2 for name, count in self._candidates.items() if count > 1}
        self._candidates = dict(list(halved.items())[: CANDIDATES // 2])


class HeldLabels:
    """Gives the destination of a held path its label: its own name, or "other"."""

    def __init__(self, labels: DestinationLabels, *, max_labels: int = MAX_HELD_LABELS) -> None:
        self._labels = labels
        self._max_labels = max_labels
        self._held_at: dict[str, float] = {}  # when they were last held
        self._full_until = 0.0

    def label(self, destination: str, now: float) -> str:
        """Return the label of a destination that is held now."""
        label = self._labels.peek(destination)
        if label != OTHER or (destination not in self._held_at and not self._has_room(now)):
            return label
        self._held_at[destination] = now
        return destination

    def _has_room(self, now: float) -> bool:
        """Return whether one more may have its name, once those that are long released have left theirs."""
        if len(self._held_at) < self._max_labels:
            return True
        if now < self._full_until:  # many are asked about at each scrape: look only when it can help
            return False
        self._held_at = {name: at for name, at in self._held_at.items() if at + KEEP_HELD_S > now}
        self._full_until = min(self._held_at.values(), default=now) + KEEP_HELD_S
        return len(self._held_at) < self._max_labels
