"""Exchanges, queues and bindings: made and ended. Nothing here destroys but `retire`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from callcast.brokers.rabbitmq.catalog import Catalog, made, retired
from callcast.brokers.rabbitmq.differences import Differences
from callcast.brokers.rabbitmq.faults import (
    NOT_FOUND,
    ChannelLost,
    is_topic_exchange,
    of_refusal,
)
from callcast.brokers.rabbitmq.link import Link
from callcast.brokers.rabbitmq.names import (
    Binding,
    Names,
    check_source,
    event_exchange,
    log_arguments,
    log_name,
    topic_exchange,
)
from callcast.brokers.rabbitmq.port import Counts, Port, close_quietly
from callcast.brokers.rabbitmq.tape import Tape
from callcast.core.errors import CallcastError, Misuse
from callcast.core.message import Message
from callcast.core.names import checked_name
from callcast.ports.broker import Difference, Source

T = TypeVar("T")

RECENT = 2.0
"""Seconds for which what was ensured here is taken to be there."""
CHANNELS_MAX = 8
"""Queues that are declared side by side: a channel waits for each answer, and a quorum queue takes
6 ms to make."""


class Topology:
    """What is there in a vhost. On the thread's loop."""

    def __init__(self, link: Link, tape: Tape, catalog: Catalog, *, retain: float) -> None:
        self._link = link
        self._tape = tape
        self._catalog = catalog
        self._retain = retain
        self._compared = Differences(link, catalog, self.counts, retain=retain)
        self._topics: set[str] = set()  # made or seen here, to be made again after a loss
        self._sources: dict[str, Source] = {}
        self._ensuring = asyncio.Lock()
        self._recent: dict[object, float] = {}  # when it was ensured

    async def ensure(self, topics: Sequence[str], sources: Sequence[Source]) -> list[Source]:
        """Make what is missing; raises `Misuse` for what is otherwise. Gives the new groups.

        A thousand first publishes at once ensure their topic once.
        """
        _check(topics, sources)
        loop = asyncio.get_running_loop()
        async with self._ensuring:
            wanted: set[object] = {*topics, *sources}
            if all(self._recent.get(each, -RECENT) > loop.time() - RECENT for each in wanted):
                return []
            new = await self._ensure(topics, sources)
            self._recent.update(dict.fromkeys(wanted, loop.time()))
            return new

    async def _ensure(self, topics: Sequence[str], sources: Sequence[Source]) -> list[Source]:
        await self._tape.catch_up()
        self._refuse_others(sources)
        names = _made_topics(topics, sources)
        for source in sources:
            found = source.bound and await self._compared.of_bound(source, source.bound)
            if found:
                raise Misuse("; ".join(one.detail for one in found))
        await self._make_topics(names)
        await self._make_groups(sources)
        new = [one for one in sources if self._catalog.find(one.topic, one.group) is None]
        if new:
            await self._tape.add([made(source) for source in new])
            await self._tape.catch_up()
            self._refuse_others(sources)  # somebody else was faster, with other facts
        self._topics.update(names)
        self._sources.update((str(source), source) for source in sources)
        return new

    async def restore(self) -> None:
        """Make again what this process has ensured, should any of it be gone.

        Bound again in any case: a server that is killed may have forgotten the bindings of its last
        seconds though the queues are there, and nobody can be asked for a binding. In a cluster of
        which a node stands still that waits until the others take it for dead.
        """
        await self._make_topics(sorted(self._topics))
        await self._make_groups(list(self._sources.values()))

    async def differences(
        self, topics: Sequence[str], sources: Sequence[Source]
    ) -> list[Difference]:
        """What is missing or otherwise; nothing is made."""
        _check(topics, sources)
        await self._tape.catch_up()
        names = _made_topics(topics, sources)
        found = [one for name in names for one in await self._compared.of_topic(name)]
        for source in sources:
            found += await self._compared.of_group(source)
        return found

    async def known(self, topic: str, group: str) -> Source | None:
        """The group as it is, or None; asks only for one that it has not heard of."""
        there = self._catalog.find(topic, group)
        if there is None:
            await self._tape.catch_up()
            there = self._catalog.find(topic, group)
        return there

    async def find(self, source: Source) -> Source:
        """The group as it is; raises `Misuse` when there is none."""
        there = await self.known(source.topic, source.group)
        if there is None:
            raise Misuse(f"there is no group {source}: ensure it first")
        return there

    async def sources(self) -> list[Source]:
        """All groups."""
        await self._tape.catch_up()
        return list(self._catalog.sources)

    def queue_of(self, message: Message) -> str:
        """Where a message for one group that is known is put."""
        there = self._catalog.find(message.topic, message.group or "")
        return "" if there is None else Names(there).queue_of(message)

    def has_hearers(self, topic: str) -> bool:
        """Whether any group is known to listen."""
        return self._catalog.has(topic)

    async def refresh(self) -> None:
        """Hear of the groups that others have made."""
        await self._tape.catch_up()

    async def retire(self, source: Source) -> None:
        """End a group with all that it has."""
        await self._tape.catch_up()
        there = self._catalog.find(source.topic, source.group)
        self._sources.pop(str(source), None)
        self._recent.clear()
        if there is None:
            return
        names = Names(there)
        counts = await self.counts(names.work)
        if any(count.consumers for count in counts.values()):
            raise Misuse(f"group {source} has workers that run: stop them, then retire it")
        what = f"retire {source}"
        await self.each(names.exchanges, lambda port, one: port.delete_exchange(one.name), what)
        await self.each(names.own, lambda port, queue: port.delete(queue), what)
        await self._tape.add([retired(source)])
        await self._tape.catch_up()

    async def counts(self, queues: Sequence[str]) -> dict[str, Counts]:
        """What these queues say about themselves, without those that are not there."""
        found: dict[str, Counts] = {}

        async def look(port: Port, queue: str) -> None:
            found[queue] = await port.look(queue)

        def is_missing(_: str, error: ChannelLost) -> bool:
            return error.code == NOT_FOUND

        await self.each(queues, look, "count messages", passes=is_missing)
        return found

    async def each(
        self,
        items: Sequence[T],
        act: Callable[[Port, T], Awaitable[object]],
        what: str,
        *,
        passes: Callable[[T, ChannelLost], bool] = lambda _, __: False,
    ) -> None:
        """Do this for each, on a few channels side by side; raises what the broker says to it.

        Unless that is known and `passes`: then the rest is done on another channel.
        """
        waiting = list(reversed(items))

        async def work() -> None:
            port = await self._link.channel()
            try:
                while waiting:
                    item = waiting.pop()
                    try:
                        await act(port, item)
                    except ChannelLost as error:
                        if not passes(item, error):
                            raise
                        port = await self._link.channel()
            finally:
                await close_quietly(port)

        try:
            await asyncio.gather(*(work() for _ in range(min(len(items), CHANNELS_MAX))))
        except ChannelLost as error:
            raise self.refused(error, what) from error

    def refused(self, error: ChannelLost, what: str) -> CallcastError:
        """What to tell about a refusal."""
        return of_refusal(error, what, self._link.endpoint)

    # Making

    async def _make_topics(self, topics: Sequence[str]) -> None:
        """Declare a fanout first, and not look first: so two that make it at once both succeed."""
        others: list[str] = []

        def is_other(topic: str, error: ChannelLost) -> bool:
            if is_topic_exchange(error):
                others.append(topic)
            return is_topic_exchange(error)

        async def make(port: Port, topic: str) -> None:
            await port.exchange(event_exchange(topic))

        async def make_other(port: Port, topic: str) -> None:
            await port.exchange(topic_exchange(topic))

        await self.each(topics, make, "declare topics", passes=is_other)
        await self.each(others, make_other, "declare topics")
        if self._retain > 0:
            await self.each(topics, self._make_log, "declare topics")

    async def _make_log(self, port: Port, topic: str) -> None:
        await port.declare(log_name(topic), log_arguments(self._retain))
        await port.bind(log_name(topic), Binding(topic))

    async def _make_groups(self, sources: Sequence[Source]) -> None:
        groups = [Names(source) for source in sources]
        queues = [(names, queue) for names in groups for queue in names.own]
        exchanges = [one for names in groups for one in names.exchanges]
        sorters = [names for names in groups if names.exchanges]

        async def make(port: Port, one: tuple[Names, str]) -> None:
            names, queue = one
            await port.declare(queue, names.arguments(queue))

        async def bind(port: Port, one: tuple[Names, str]) -> None:
            names, queue = one
            for binding in names.bindings(queue):
                await port.bind(queue, binding)

        async def join(port: Port, names: Names) -> None:
            await port.bind_exchange(names.sorter, Binding(names.source.topic))

        await self.each(queues, make, "declare queues")
        await self.each(exchanges, lambda port, one: port.exchange(one), "declare exchanges")
        # Bound last: what is delivered here finds its dead letters and delays in place. And what
        # comes to an ordered group finds all lanes, so that none of it strays.
        await self.each([one for one in queues if one[0].bindings(one[1])], bind, "bind queues")
        await self.each(sorters, join, "bind exchanges")

    def _refuse_others(self, sources: Sequence[Source]) -> None:
        other = [text for source in sources for text in self._catalog.otherwise(source)]
        if other:
            raise Misuse("; ".join(other))


def _made_topics(topics: Sequence[str], sources: Sequence[Source]) -> list[str]:
    """Those whose exchange is ours to make."""
    bound = {source.topic for source in sources if source.bound is not None}
    wanted = [*topics, *(source.topic for source in sources)]
    return [one for one in dict.fromkeys(wanted) if one not in bound]


def _check(topics: Sequence[str], sources: Sequence[Source]) -> None:
    for topic in topics:
        checked_name(topic, "topic")
    for source in sources:
        check_source(source)
