"""What the queues of a group send here, read; taken in once for all that comes at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct
from pika import BasicProperties, spec

from callcast.brokers.rabbitmq import foreign, wire
from callcast.brokers.rabbitmq.deliveries import Came
from callcast.brokers.rabbitmq.port import Port
from callcast.brokers.rabbitmq.wire import Arrived, Frame
from callcast.ports.broker import Source


class Coming(Struct, frozen=True, gc=False):
    """A message on its way to its place."""

    queue: str
    tag: int
    is_redelivered: bool
    arrived: Arrived


class Inlet:
    """Of one group, in one process; `came` is called when there is something to take."""

    def __init__(self, source: Source, came: Callable[[], None], *, is_of_letters: bool) -> None:
        self._source = source
        self._read = foreign.read_letter if is_of_letters else foreign.read
        self._is_usual = source.bound is None and not is_of_letters
        self._came = came
        self._coming: list[Coming] = []

    def __len__(self) -> int:
        return len(self._coming)

    def clear(self) -> None:
        """The channel is lost: the broker has it all back."""
        self._coming.clear()

    def take(self) -> list[Coming]:
        """What has come since the last time, in its order."""
        coming, self._coming = self._coming, []
        return coming

    async def open(
        self, port: Port, queue: str, *, prefetch: int, arguments: Mapping[str, int]
    ) -> str:
        """Subscribe to a queue; gives the consumer's tag."""
        if self._is_usual:
            taker = self._taker(port, queue)
            return await port.take(queue, taker, prefetch=prefetch, arguments=arguments)

        def on_message(
            method: spec.Basic.Deliver, properties: BasicProperties, body: bytes
        ) -> None:
            arrived = self._read(self._source, (method, properties, body))
            self._add(
                port, Coming(queue, method.delivery_tag or 0, bool(method.redelivered), arrived)
            )

        return await port.consume(queue, on_message, prefetch=prefetch, arguments=arguments)

    def _taker(self, port: Port, queue: str) -> Callable[[Came], None]:
        """What reads the messages of a queue of ours."""
        topic = self._source.topic

        def take(came: Came) -> None:
            frame = Frame.of(topic, came.content_type, came.timestamp)
            if came.is_plain:
                arrived = wire.read_texts(came.names, came.values, came.body, frame=frame)
            else:
                arrived = wire.read(came.headers, came.body, frame)
            self._add(port, Coming(queue, came.tag, came.is_redelivered, arrived))

        return take

    def _add(self, port: Port, coming: Coming) -> None:
        if not self._coming:
            port.after_read(self._came)
        self._coming.append(coming)
