"""Spans of what goes between a broker and a worker: batches fetched, batches settled."""

from __future__ import annotations

from collections.abc import Sequence

from callcast.core.outcome import Outcome
from callcast.policies.observing import Silent
from callcast.ports.broker import Consumer, Delivery, Feed, Lag, Part, Source
from callcast.ports.observer import Moved
from callcast.runtime.ports import Ports


def traced(feed: Feed, ports: Ports) -> Feed:
    """The feed, its batches made spans of; as it is where nobody observes."""
    return feed if isinstance(ports.observer, Silent) else TracedFeed(feed, ports)


class TracedFeed:
    """Hands out consumers whose batches are told to the observer."""

    def __init__(self, feed: Feed, ports: Ports) -> None:
        self._feed = feed
        self._ports = ports

    async def consume(
        self,
        source: Source,
        *,
        part: Part = Part.READY,
        lease: float = 60.0,
        prefetch: int = 250,
    ) -> Consumer:
        """Open a consumer of one part of a source; `lease` in seconds."""
        consumer = await self._feed.consume(source, part=part, lease=lease, prefetch=prefetch)
        return TracedConsumer(consumer, source, self._ports)

    async def lag(self, source: Source) -> Lag:
        """How far this group is behind."""
        return await self._feed.lag(source)


class TracedConsumer:
    """A consumer; a fetch that brings nothing is not told."""

    def __init__(self, consumer: Consumer, source: Source, ports: Ports) -> None:
        self._consumer = consumer
        self._source = source
        self._observer = ports.observer
        self._now = ports.clock.now

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Hand over up to `limit` deliveries; waits for the first one only."""
        began = self._now()
        batch = await self._consumer.fetch(limit, wait)
        if batch and self._observer.is_tracing:
            messages = [delivery.message for delivery in batch]
            source, took = self._source, self._now() - began
            self._observer.moved(Moved("receive", source.topic, source.group, messages, took))
        return batch

    async def settle(self, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Carry out all verdicts; raises `Unsettled`."""
        if not self._observer.is_tracing:
            await self._consumer.settle(verdicts)
            return
        began = self._now()
        try:
            await self._consumer.settle(verdicts)
        except Exception as error:
            self._settled(verdicts, began, error)
            raise
        self._settled(verdicts, began, None)

    def _settled(
        self,
        verdicts: Sequence[tuple[Delivery, Outcome]],
        began: float,
        error: Exception | None,
    ) -> None:
        messages = [delivery.message for delivery, _ in verdicts]
        source, took = self._source, self._now() - began
        self._observer.moved(Moved("settle", source.topic, source.group, messages, took, error))

    async def close(self) -> None:
        """Release what is still held, and end."""
        await self._consumer.close()

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Extend these leases; called from other threads."""
        self._consumer.renew(deliveries)
