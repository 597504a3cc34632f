"""A channel, as awaitables on the thread's loop; and what is written to one.

A channel that is lost is never used again: what was told to it and not answered ends with
`ChannelLost`. What belongs to pika stands here and in the files beside it that import it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from pika import BasicProperties, spec
from pika.channel import Channel

from callcast.brokers.rabbitmq import deliveries, frames
from callcast.brokers.rabbitmq.connection import Connection, OnCame, OnConfirm
from callcast.brokers.rabbitmq.faults import ChannelLost, of_channel
from callcast.brokers.rabbitmq.fitting import HEADERS_MAX_BYTES, TooWide
from callcast.brokers.rabbitmq.letters import Letter
from callcast.brokers.rabbitmq.names import Binding, Exchange

Loop: TypeAlias = asyncio.AbstractEventLoop
OnMessage: TypeAlias = Callable[[spec.Basic.Deliver, BasicProperties, bytes], None]
Got: TypeAlias = tuple[spec.Basic.GetOk | spec.Basic.Deliver, BasicProperties, bytes]


class Counts(NamedTuple):
    """What a queue says about itself."""

    ready: int
    consumers: int


class Port:
    """A channel: told to the broker in order, each answer awaited by its caller."""

    def __init__(self, connection: Connection, channel: Channel, loop: Loop) -> None:
        self._connection = connection
        self._channel = channel
        self._number: int = channel.channel_number
        self._body_max: int = connection.body_max
        self._loop = loop
        self._taking: list[str] = []  # tags of consumers whose deliveries go past pika
        self._waiting: set[asyncio.Future[Any]] = set()
        self._listeners: list[Callable[[ChannelLost], None]] = []
        self.lost: ChannelLost | None = None
        self._getting: asyncio.Future[Got | None] | None = None
        channel.add_on_close_callback(lambda _, error: self.lose(of_channel(error)))
        channel.add_callback(self._got_nothing, [spec.Basic.GetEmpty], one_shot=False)

    def on_lost(self, listener: Callable[[ChannelLost], None]) -> None:
        """Call this when the channel is lost, once."""
        self._listeners.append(listener)

    def lose(self, error: ChannelLost) -> None:
        """The channel is gone."""
        if self.lost is not None:
            return
        self.lost = error
        self._end_taking()
        for waiting in list(self._waiting):
            fail(waiting, error)
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener(error)

    # Topology

    async def declare(
        self, queue: str, arguments: Mapping[str, Any], *, is_durable: bool = True
    ) -> Counts:
        """Make a durable queue, or see that it is there and so."""
        frame = await self._ask(
            lambda done: self._channel.queue_declare(
                queue, durable=is_durable, arguments=arguments, callback=done
            )
        )
        return Counts(frame.method.message_count, frame.method.consumer_count)

    async def look(self, queue: str) -> Counts:
        """How many messages wait and consumers there are; a missing queue loses the channel."""
        frame = await self._ask(
            lambda done: self._channel.queue_declare(queue, passive=True, callback=done)
        )
        return Counts(frame.method.message_count, frame.method.consumer_count)

    async def exchange(self, wanted: Exchange, *, passive: bool = False) -> None:
        """Make a durable exchange, or see that it is there and so; passive: that it is there."""
        arguments = {"alternate-exchange": wanted.alternate} if wanted.alternate else None
        await self._ask(
            lambda done: self._channel.exchange_declare(
                wanted.name,
                wanted.kind,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - the stubs know the members of an enum alone
                durable=True,
                passive=passive,
                arguments=arguments,
                callback=done,
            )
        )

    async def bind(self, queue: str, to: Binding) -> None:
        """Let what comes to this exchange under this key come to this queue."""
        await self._ask(
            lambda done: self._channel.queue_bind(queue, to.exchange, to.key, callback=done)
        )

    async def bind_exchange(self, name: str, to: Binding) -> None:
        """Let it come to this exchange."""
        await self._ask(
            lambda done: self._channel.exchange_bind(name, to.exchange, to.key, callback=done)
        )

    async def delete_exchange(self, name: str) -> None:
        """End an exchange with its bindings; one that is not there is no error."""
        await self._ask(lambda done: self._channel.exchange_delete(name, callback=done))

    async def delete(self, queue: str) -> None:
        """End a queue with all that is in it; one that is not there is no error."""
        await self._ask(lambda done: self._channel.queue_delete(queue, callback=done))

    async def purge(self, queue: str) -> None:
        """Empty a queue."""
        await self._ask(lambda done: self._channel.queue_purge(queue, callback=done))

    # Messages

    async def get(self, queue: str) -> Got | None:
        """The next message of a queue, unacknowledged; None when there is none. One at a time."""
        answer: asyncio.Future[Got | None] = self._loop.create_future()
        self._watch(answer)
        self._getting = answer
        self._tell(
            lambda: self._channel.basic_get(
                queue,
                lambda _, method, properties, body: fulfil(answer, (method, properties, body)),
            )
        )
        return await answer

    async def consume(
        self,
        queue: str,
        on_message: OnMessage,
        *,
        prefetch: int,
        arguments: Mapping[str, Any] | None = None,
        tag: str | None = None,
    ) -> str:
        """Subscribe; `on_message` is called for each delivery. Gives the consumer's tag."""
        await self._ask(
            lambda done: self._channel.basic_qos(prefetch_count=prefetch, callback=done)
        )
        frame = await self._ask(
            lambda done: self._channel.basic_consume(
                queue,
                lambda _, method, properties, body: on_message(method, properties, body),
                arguments=arguments,
                consumer_tag=tag,
                callback=done,
            )
        )
        return str(frame.method.consumer_tag)

    async def take(
        self, queue: str, on_came: OnCame, *, prefetch: int, arguments: Mapping[str, Any]
    ) -> str:
        """The same for a queue of ours, whose messages have nothing that `Came` has not."""
        tag = f"{self._number}.{len(self._taking)}"  # no other of this connection has it
        self._taking.append(tag)
        self._connection.takers[tag.encode()] = on_came

        def on_message(
            method: spec.Basic.Deliver, properties: BasicProperties, body: bytes
        ) -> None:
            on_came(deliveries.of_pika(method, properties, body))

        return await self.consume(
            queue, on_message, prefetch=prefetch, arguments=arguments, tag=tag
        )

    def after_read(self, act: Callable[[], object]) -> None:
        """While a delivery is taken: call this once when all that has come with it is taken too."""
        self._connection.after_read(act)

    async def cancel(self, tag: str) -> None:
        """End a subscription; what it has delivered stays unacknowledged."""
        self._connection.takers.pop(tag.encode(), None)
        await self._ask(lambda done: self._channel.basic_cancel(tag, callback=done))

    def on_cancel(self, listener: Callable[[], None]) -> None:
        """Call this when the broker ends a subscription by itself."""
        self._channel.add_on_cancel_callback(lambda _: listener())

    async def confirm(
        self,
        on_ack: OnConfirm,
        on_nack: OnConfirm,
        on_return: Callable[[spec.Basic.Return, BasicProperties], None],
    ) -> None:
        """Have publishes confirmed, by number: this one, or all up to it."""

        def on_answer(frame: Any) -> None:
            answer = on_ack if isinstance(frame.method, spec.Basic.Ack) else on_nack
            answer(frame.method.delivery_tag, frame.method.multiple)

        self._channel.add_on_return_callback(
            lambda _, method, properties, _body: on_return(method, properties)
        )
        self._connection.confirmed[self._number] = on_ack
        await self._ask(lambda done: self._channel.confirm_delivery(on_answer, callback=done))

    def frames_of(self, letter: Letter) -> bytes:
        """What is to be written of it; raises what the codec says about a bad header."""
        place = (self._number, letter.exchange, letter.key, letter.is_mandatory)
        properties = b"".join(letter.properties.encode())
        if len(properties) > HEADERS_MAX_BYTES:
            raise TooWide(len(properties))
        return frames.published(place, properties, letter.body, body_max=self._body_max)

    def write(self, publishes: Sequence[bytes]) -> None:
        """Write these now: the broker works on them while more is encoded."""
        self._connection.write(b"".join(publishes))

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Write an acknowledgement; nothing once the channel is lost."""
        if self.lost is None:
            self._channel.basic_ack(tag, multiple)

    def nack(self, tag: int) -> None:
        """Give back to a queue of others: 4.3 does not count that towards the limit it may have."""
        if self.lost is None:
            self._channel.basic_nack(tag, requeue=True)

    def give_back(self, tag: int, *, is_bound: bool) -> None:
        """Give back what was not handled, to a queue of ours or of others."""
        if is_bound:
            self.nack(tag)
        else:
            self.reject(tag)

    def reject(self, tag: int) -> None:
        """Give back, counted by every version alike: what is pardoned is what was counted."""
        if self.lost is None:
            self._channel.basic_reject(tag, requeue=True)

    async def close(self) -> None:
        """Close; what is unacknowledged goes back, before others are given more. Idempotent."""
        if self.lost is not None or not self._channel.is_open:
            return
        self._end_taking()
        # The driver would cancel each subscription first, and a queue with a single active consumer
        # then gives the next one what stands behind the messages that are still here. Let it think
        # that it has done so: the end of the channel is one event for the queue.
        self._channel._cancelled.update(self._channel._consumers)  # type: ignore[attr-defined]  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - there is no other way to say it
        ended: asyncio.Future[None] = self._loop.create_future()
        self.on_lost(lambda _: fulfil(ended, None))
        self._channel.close()
        await ended

    # Inside

    def _end_taking(self) -> None:
        for tag in self._taking:
            self._connection.takers.pop(tag.encode(), None)
        self._connection.confirmed.pop(self._number, None)

    def _got_nothing(self, _: object) -> None:
        if self._getting is not None:
            fulfil(self._getting, None)

    async def _ask(self, tell: Callable[[Callable[[Any], None]], object]) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._watch(answer)
        self._tell(lambda: tell(fulfilling(answer)))
        return await answer

    def _watch(self, answer: asyncio.Future[Any]) -> None:
        if self.lost is not None:
            raise self.lost
        self._waiting.add(answer)
        answer.add_done_callback(self._waiting.discard)

    def _tell(self, tell: Callable[[], object]) -> None:
        try:
            tell()
        except Exception as error:
            raise of_channel(error) from error


async def close_quietly(port: Port) -> None:
    """Close a channel; its loss closes it too."""
    try:
        await port.close()
    except ChannelLost:
        return


def fulfilling(future: asyncio.Future[Any]) -> Callable[[Any], None]:
    """A callback that gives a future its result."""
    return lambda value: fulfil(future, value)


def fulfil(future: asyncio.Future[Any], value: object) -> None:
    """Give it its result, unless it has ended."""
    if not future.done():
        future.set_result(value)


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """End it with an error, unless it has ended."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # taken note of: whoever awaited it may have been cancelled
