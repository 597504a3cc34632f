"""Exchanges, queues and bindings: made, compared, ended. Nothing here destroys but `retire`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from callcast.brokers.rabbitmq import foreign
from callcast.brokers.rabbitmq.catalog import Catalog, made, retired
from callcast.brokers.rabbitmq.faults import DIFFERENT, NOT_FOUND, ChannelLost, of_refusal
from callcast.brokers.rabbitmq.link import Link
from callcast.brokers.rabbitmq.names import (
    LOG_BINDINGS,
    Names,
    check_source,
    log_arguments,
    log_name,
)
from callcast.brokers.rabbitmq.port import Counts, Port, close_quietly
from callcast.brokers.rabbitmq.tape import Tape
from callcast.core.amqp import Bound
from callcast.core.errors import CallcastError, Misuse
from callcast.core.message import Message
from callcast.core.names import checked_name
from callcast.ports.broker import Difference, Source

T = TypeVar("T")
R = TypeVar("R")

RECENT = 2.0
"""Seconds for which what was ensured here is taken to be there."""
ARGUMENTS_MAX = 30
"""Arguments of a queue that are asked for, one by one."""
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
            if source.bound is not None:
                await self._check_bound(source, source.bound)
        await self.each(names, self._make_topic, "declare topics")
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
        await self.each(sorted(self._topics), self._make_topic, "declare topics")
        await self._make_groups(list(self._sources.values()))

    async def differences(
        self, topics: Sequence[str], sources: Sequence[Source]
    ) -> list[Difference]:
        """What is missing or otherwise; nothing is made."""
        _check(topics, sources)
        await self._tape.catch_up()
        names = _made_topics(topics, sources)
        found = [one for name in names for one in await self._topic_differences(name)]
        for source in sources:
            found += await self._group_differences(source)
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
        await self.each(names.own, lambda port, queue: port.delete(queue), f"retire {source}")
        await self._tape.add([retired(source)])
        await self._tape.catch_up()

    async def counts(self, queues: Sequence[str]) -> dict[str, Counts]:
        """What these queues say about themselves, without those that are not there."""
        found: dict[str, Counts] = {}

        async def look(port: Port, queue: str) -> None:
            found[queue] = await port.look(queue)

        await self.each(queues, look, "count messages", missing_ok=True)
        return found

    async def each(
        self,
        items: Sequence[T],
        act: Callable[[Port, T], Awaitable[object]],
        what: str,
        *,
        missing_ok: bool = False,
    ) -> None:
        """Do this for each, on a few channels side by side; raises what the broker says to it."""
        waiting = list(reversed(items))

        async def work() -> None:
            port = await self._link.channel()
            try:
                while waiting:
                    item = waiting.pop()
                    try:
                        await act(port, item)
                    except ChannelLost as error:
                        if not missing_ok or error.code != NOT_FOUND:
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

    async def _make_topic(self, port: Port, topic: str) -> None:
        await port.exchange(topic)
        if self._retain > 0:
            await port.declare(log_name(topic), log_arguments(self._retain))
            for key in LOG_BINDINGS:
                await port.bind(log_name(topic), topic, key)

    async def _make_groups(self, sources: Sequence[Source]) -> None:
        wanted = [(names, queue) for names in map(Names, sources) for queue in names.own]

        async def make(port: Port, one: tuple[Names, str]) -> None:
            names, queue = one
            await port.declare(queue, names.arguments(queue))

        async def bind(port: Port, one: tuple[Names, str]) -> None:
            names, queue = one
            for key in names.bindings(queue):
                await port.bind(queue, names.source.topic, key)

        await self.each(wanted, make, "declare queues")
        # Bound last: what is delivered here finds its dead letters and delays in place.
        await self.each([one for one in wanted if one[0].bindings(one[1])], bind, "bind queues")

    def _refuse_others(self, sources: Sequence[Source]) -> None:
        other = [text for source in sources for text in self._catalog.otherwise(source)]
        if other:
            raise Misuse("; ".join(other))

    # Comparing

    async def _topic_differences(self, topic: str) -> list[Difference]:
        port = await self._link.channel()
        try:
            await port.exchange(topic, passive=True)
            await port.exchange(topic)  # changes nothing about one that is there
        except ChannelLost as error:
            if error.code == NOT_FOUND:
                return [Difference(topic, f"topic {topic!r} is missing", is_missing=True)]
            if error.code == DIFFERENT:
                text = f"exchange {topic!r} is otherwise: {error.text}"
                return [Difference(topic, text, is_missing=False)]
            raise self.refused(error, f"look at the exchange {topic!r}") from error
        finally:
            await close_quietly(port)
        return await self._log_differences(topic) if self._retain > 0 else []

    async def _log_differences(self, topic: str) -> list[Difference]:
        log = log_name(topic)
        if log not in await self.counts([log]):
            text = f"stream {log!r}, which keeps topic {topic!r}, is missing"
            return [Difference(topic, text, is_missing=True)]
        other = await self._refusal(log, log_arguments(self._retain))
        text = f"stream {log!r}, which keeps topic {topic!r}, is otherwise: {other}"
        return [Difference(topic, text, is_missing=False)] if other else []

    async def _group_differences(self, source: Source) -> list[Difference]:
        name = str(source)
        if self._catalog.find(source.topic, source.group) is None:
            return [Difference(name, f"group {source} is missing", is_missing=True)]
        found = [Difference(name, one, is_missing=False) for one in self._catalog.otherwise(source)]
        if found:
            return found
        names = Names(source)
        there = await self.counts(names.all)
        for queue in names.all:
            if source.bound is not None and queue == source.bound.queue:
                found += await self._bound_differences(source, source.bound)
                continue
            if queue not in there:
                text = f"queue {queue!r} of group {source} is missing"
                found.append(Difference(name, text, is_missing=True))
                continue
            other = await self._refusal(queue, names.arguments(queue))
            if other:
                text = f"queue {queue!r} of group {source} is otherwise: {other}"
                found.append(Difference(name, text, is_missing=False))
        return found

    async def _check_bound(self, source: Source, bound: Bound) -> None:
        found = await self._bound_differences(source, bound)
        if found:
            raise Misuse("; ".join(one.detail for one in found))

    async def _bound_differences(self, source: Source, bound: Bound) -> list[Difference]:
        """What is wrong with a queue that others made: it is missing, or loses messages."""
        where = f"queue {bound.queue!r}, which {source} is bound to,"
        if bound.queue not in await self.counts([bound.queue]):
            said = f"{where} is not there: callcast makes no queue of others"
            return [Difference(str(source), said, is_missing=False)]
        arguments = await self._arguments(bound.queue)
        wrong = foreign.unusable(arguments)
        wrong = wrong or ("" if bound.may_drop else foreign.risk(arguments))
        return [Difference(str(source), f"{where} {wrong}", is_missing=False)] if wrong else []

    async def _arguments(self, queue: str) -> dict[str, str | int]:
        """What a queue was made with: the broker names each one that a declaration leaves out."""
        found: dict[str, str | int] = {}
        is_durable = True
        for _ in range(ARGUMENTS_MAX):
            named = foreign.argument_in(await self._refusal(queue, found, is_durable=is_durable))
            if named is None:
                break
            if named.name == "durable":
                is_durable = named.value == "true"
            elif named.name in found:
                break  # it says the same again
            else:
                found[named.name] = named.value
        return found

    async def _refusal(
        self, queue: str, arguments: Mapping[str, str | int | bool], *, is_durable: bool = True
    ) -> str:
        """What the broker says when a queue that is there is declared so; empty: it is so."""
        port = await self._link.channel()
        try:
            await port.declare(queue, arguments, is_durable=is_durable)
        except ChannelLost as error:
            if error.code != DIFFERENT:
                raise self.refused(error, f"compare the queue {queue!r}") from error
            return error.text
        finally:
            await close_quietly(port)
        return ""


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
