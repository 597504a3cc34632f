"""Asking how far groups are, by consumers of these groups that join nothing.

The administrator has the same question, and must not be asked it: told that the coordinator of a
group has moved, it ends the process with a segmentation fault (librdkafka 2.16, its issue 5040). A
consumer finds the coordinator by itself, waits for one that is being elected or reads, and asks
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, TopicPartition

MAX = 16
"""Connections that stay open: a group is asked for again and again."""
HASTE = {"retry.backoff.ms": 10, "retry.backoff.max.ms": 200}
"""A new consumer has not found its coordinator when it is asked, and tries again so soon."""


class Askers:
    """One consumer for each group that was asked for lately. Blocks; for one thread."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._config = config
        self._consumers: dict[str, Consumer] = {}  # the one used last comes last

    def committed(
        self, group: str, parts: list[TopicPartition], timeout: float
    ) -> Sequence[TopicPartition]:
        """What a group has committed of these partitions; raises the driver's error."""
        asker = self._consumers.pop(group, None)
        if asker is None:
            asker = Consumer({**self._config, **HASTE, "group.id": group})
        self._consumers[group] = asker
        if len(self._consumers) > MAX:
            self._consumers.pop(next(iter(self._consumers))).close()
        return asker.committed(parts, timeout=timeout)

    def close(self) -> None:
        """End all connections. Idempotent."""
        while self._consumers:
            self._consumers.popitem()[1].close()
