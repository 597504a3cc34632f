"""What is said to the channel that brought a delivery; tags of an earlier channel are void."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from callcast.brokers.rabbitmq.acks import Acks
from callcast.brokers.rabbitmq.port import Port


class Received(Protocol):
    """Something that a channel has brought."""

    @property
    def tag(self) -> int:
        """By which it is acknowledged."""
        ...

    @property
    def generation(self) -> int:
        """Which channel brought it."""
        ...


class Receipts:
    """Acknowledges and gives back, on the channel that there is now.

    `is_bound`: the queues are of others.
    """

    def __init__(self, *, is_bound: bool) -> None:
        self.generation: int = 0
        """Of the channel that there is now."""
        self._is_bound = is_bound
        self._port: Port | None = None
        self._acks = Acks()

    def begin(self, port: Port) -> None:
        """A channel of which nothing is known yet."""
        self._port = port
        self.void()
        self._acks = Acks()

    def void(self) -> None:
        """All that was brought until now is back at the broker, or will be."""
        self.generation += 1

    def acknowledge(self, received: Iterable[Received]) -> None:
        """These are done."""
        tags = self._tags(received)
        if self._port is not None and tags:
            for ack in self._acks.acked(tags):
                self._port.ack(ack.tag, multiple=ack.multiple)

    def give_back(self, received: Iterable[Received], *, is_failed: bool = False) -> None:
        """These are for somebody else; `is_failed` when that is to count everywhere."""
        tags = self._tags(received)
        if self._port is None:
            return
        for tag in tags:
            self._port.give_back(tag, is_bound=self._is_bound and not is_failed)
        self._acks.returned(tags)

    def _tags(self, received: Iterable[Received]) -> list[int]:
        return [one.tag for one in received if one.generation == self.generation]
