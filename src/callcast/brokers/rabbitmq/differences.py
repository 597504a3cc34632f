"""What is missing or otherwise in a vhost, a sentence each. Nothing is made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from callcast.brokers.rabbitmq import foreign
from callcast.brokers.rabbitmq.catalog import Catalog
from callcast.brokers.rabbitmq.faults import (
    DIFFERENT,
    NOT_FOUND,
    ChannelLost,
    is_topic_exchange,
    of_refusal,
)
from callcast.brokers.rabbitmq.link import Link
from callcast.brokers.rabbitmq.names import (
    Exchange,
    Names,
    event_exchange,
    log_arguments,
    log_name,
    topic_exchange,
)
from callcast.brokers.rabbitmq.port import Counts, close_quietly
from callcast.core.amqp import Bound
from callcast.ports.broker import Difference, Source

Counting: TypeAlias = Callable[[Sequence[str]], Awaitable[dict[str, Counts]]]

ARGUMENTS_MAX = 30
"""Arguments of a queue that are asked for, one by one."""


class Differences:
    """Between what is wanted and what is there; AMQP shows no bindings. On the thread's loop."""

    def __init__(self, link: Link, catalog: Catalog, counts: Counting, *, retain: float) -> None:
        self._link = link
        self._catalog = catalog
        self._counts = counts
        self._retain = retain

    async def of_topic(self, topic: str) -> list[Difference]:
        """Of its exchange, and of the stream that keeps it."""
        error = await self._unlike(event_exchange(topic))
        if error is not None and is_topic_exchange(error):
            error = await self._unlike(topic_exchange(topic))  # so it serves, if the rest is so
        if error is None:
            return await self._of_log(topic) if self._retain > 0 else []
        if error.code == NOT_FOUND:
            return [Difference(topic, f"topic {topic!r} is missing", is_missing=True)]
        text = f"exchange {topic!r} is otherwise: {error.text}"
        return [Difference(topic, text, is_missing=False)]

    async def of_group(self, source: Source) -> list[Difference]:
        """Of its queues and exchanges."""
        name = str(source)
        if self._catalog.find(source.topic, source.group) is None:
            return [Difference(name, f"group {source} is missing", is_missing=True)]
        found = [Difference(name, one, is_missing=False) for one in self._catalog.otherwise(source)]
        if found:
            return found
        names = Names(source)
        for exchange in names.exchanges:
            found += await self._of_exchange(name, exchange)
        there = await self._counts(names.all)
        for queue in names.all:
            if source.bound is not None and queue == source.bound.queue:
                found += await self.of_bound(source, source.bound)
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

    async def of_bound(self, source: Source, bound: Bound) -> list[Difference]:
        """What is wrong with a queue that others made: it is missing, or loses messages."""
        where = f"queue {bound.queue!r}, which {source} is bound to,"
        if bound.queue not in await self._counts([bound.queue]):
            said = f"{where} is not there: callcast makes no queue of others"
            return [Difference(str(source), said, is_missing=False)]
        arguments = await self._arguments(bound.queue)
        wrong = foreign.unusable(arguments)
        wrong = wrong or ("" if bound.may_drop else foreign.risk(arguments))
        return [Difference(str(source), f"{where} {wrong}", is_missing=False)] if wrong else []

    async def _of_exchange(self, group: str, wanted: Exchange) -> list[Difference]:
        error = await self._unlike(wanted)
        if error is None:
            return []
        is_missing = error.code == NOT_FOUND
        how = "missing" if is_missing else f"otherwise: {error.text}"
        text = f"exchange {wanted.name!r} of group {group} is {how}"
        return [Difference(group, text, is_missing=is_missing)]

    async def _unlike(self, wanted: Exchange) -> ChannelLost | None:
        """What the broker says when it is told that an exchange is there and so; None: it is."""
        port = await self._link.channel()
        try:
            await port.exchange(wanted, passive=True)
            await port.exchange(wanted)  # changes nothing about one that is there
        except ChannelLost as error:
            if error.code not in {NOT_FOUND, DIFFERENT}:
                what = f"look at the exchange {wanted.name!r}"
                raise of_refusal(error, what, self._link.endpoint) from error
            return error
        finally:
            await close_quietly(port)
        return None

    async def _of_log(self, topic: str) -> list[Difference]:
        log = log_name(topic)
        if log not in await self._counts([log]):
            text = f"stream {log!r}, which keeps topic {topic!r}, is missing"
            return [Difference(topic, text, is_missing=True)]
        other = await self._refusal(log, log_arguments(self._retain))
        text = f"stream {log!r}, which keeps topic {topic!r}, is otherwise: {other}"
        return [Difference(topic, text, is_missing=False)] if other else []

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
                what = f"compare the queue {queue!r}"
                raise of_refusal(error, what, self._link.endpoint) from error
            return error.text
        finally:
            await close_quietly(port)
        return ""
