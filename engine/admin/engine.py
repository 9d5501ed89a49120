"""What the admin API needs of the engine behind it; the supervisor provides it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class Answers(NamedTuple):
    """What the shards said: results by shard, and why others gave none."""

    results: dict[int, Any]
    errors: dict[int, str]


class Engine(Protocol):
    """The running engine."""

    async def format_metrics(self) -> tuple[bytes, str]:
        """Return the exposition of all metrics and its content type."""

    def describe(self) -> dict[str, Any]:
        """Return what the supervisor itself knows: generation, shards, listeners, draining."""

    async def ask(self, what: str, criteria: dict[str, str], limit: int) -> Answers:
        """Put one query to the shards that can answer it."""

    async def reload(self) -> dict[str, Any]:
        """Load the configuration anew and bring it to all shards.

        Raises:
            ConfigError: it is wrong, or a shard could not take it; everything runs on as before.
        """

    async def retry(self, message_id: str) -> Answers:
        """Make a message's deliveries due now, those held as poison too; how many of each, by shard."""

    async def cancel_rule(self, key: str) -> Answers:
        """End what a rule for replies has in force, by its key; how many, by shard."""

    async def drain(self, is_on: bool) -> dict[str, Any]:
        """Refuse new mail, or take it again; return which shards have been told."""
