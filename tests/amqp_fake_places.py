"""Where a message may lie in the small RabbitMQ of `amqp_fake`, and how it comes there."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pika import BasicProperties


@dataclass
class Stored:
    """A message in a queue."""

    properties: BasicProperties
    body: bytes
    key: str
    count: int = 0
    is_back: bool = False


@dataclass
class Queue:
    """A queue or a stream."""

    name: str
    arguments: dict[str, Any]
    waiting: deque[Stored] = field(default_factory=deque[Stored])

    @property
    def is_stream(self) -> bool:
        return self.arguments.get("x-queue-type") == "stream"


@dataclass
class Exchange:
    """A fanout or a direct exchange, with where its messages go under which keys."""

    kind: str
    alternate: str = ""
    queues: dict[tuple[str, str], None] = field(default_factory=dict[tuple[str, str], None])
    exchanges: dict[tuple[str, str], None] = field(default_factory=dict[tuple[str, str], None])

    def takes(self, bound: str, key: str) -> bool:
        """Whether what comes under this key goes to what is bound with that one."""
        return self.kind == "fanout" or bound == key


def reached(exchanges: Mapping[str, Exchange], name: str, key: str) -> list[str]:
    """The queues that a message comes to, each as often as it is found."""
    at = exchanges[name]
    queues = [queue for bound, queue in at.queues if at.takes(bound, key)]
    further = [other for bound, other in at.exchanges if at.takes(bound, key)]
    if not (queues or further) and at.alternate:
        further = [at.alternate]
    return [*queues, *(queue for other in further for queue in reached(exchanges, other, key))]
