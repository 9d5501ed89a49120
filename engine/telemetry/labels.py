"""Which destinations get a label of their own in the metrics.

Named providers always do. Of the others, a bounded number: a host that sends to 200,000 domains must not make
200,000 series. A label once given stays until the process ends, because a series that vanished, or moved
between its own name and "other", would look like lost mail. So they are given with growing reluctance: the
first quarter to whoever comes, the rest to destinations that prove heavier and heavier.

Owns: that choice, for one process.
Never: counts messages for anyone else.
"""

from __future__ import annotations

OTHER = "other"
MAX_LABELS = 100  # a shard; times customers, events and shards it is what a Prometheus server likes
CANDIDATES = 10_000  # 1 MB; who is heavier than one message in 10,000 is seen
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
