"""Spreading the lanes of an ordered group over its workers, by the priorities of their consumers.

A single active consumer is the one with the highest priority; of several it is the first that
came. So without priorities the first worker gets every lane. Each worker claims its own share
with a higher priority, by where its name falls on a ring: whoever comes later takes over what it
claims most, and whoever leaves, leaves it to the next (rendezvous hashing: a worker that comes or
goes moves its own share only).
"""

from __future__ import annotations

import zlib

PRIORITY_MAX = 1_000_000
"""A claim is a number below this one; RabbitMQ takes any integer."""


def priority(worker: str, queue: str) -> int:
    """How much this worker claims that queue. The same in every process."""
    return zlib.crc32(f"{worker}\n{queue}".encode()) % PRIORITY_MAX


def owners(workers: list[str], queues: list[str]) -> dict[str, str]:
    """Who gets which queue when all these workers are there; for people and tests."""
    return {queue: max(workers, key=lambda who: priority(who, queue)) for queue in queues}
