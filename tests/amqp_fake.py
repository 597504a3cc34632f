"""A small RabbitMQ 4.3, as far as its habits matter that no server here has; over real sockets.

| what                                   | 4.0 and before        | here, as 4.3                     |
|----------------------------------------|-----------------------|----------------------------------|
| `basic.nack` with requeue              | counted               | not counted                      |
| `basic.reject`, the end of a channel   | counted               | counted                          |
| the consumer timeout                   | closes the channel    | `basic.cancel`, not counted      |
| a transient queue that is not one's own| made                  | refused                          |

Frames are pika's own. It has quorum queues, streams, TTLs with dead-lettering, confirms, mandatory.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from amqp_fake_places import Exchange, Queue, Stored, reached
from pika import BasicProperties, frame, spec

FRAME_MAX = 131_072
ABILITIES = ("publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked")
SAID = {"version": "4.3.0", "capabilities": dict.fromkeys(ABILITIES, True)}


@dataclass
class Consumer:
    tag: str
    queue: Queue
    prefetch: int
    offset: int = 0
    out: int = 0


@dataclass
class Channel:
    """One channel of a client."""

    number: int
    confirms: int = -1  # the next number; -1 without confirms
    prefetch: int = 0
    tags: Any = field(default_factory=lambda: itertools.count(1))
    unacked: dict[int, tuple[Consumer | None, Queue, Stored]] = field(default_factory=dict)  # type: ignore[type-arg]
    consumers: dict[str, Consumer] = field(default_factory=dict[str, Consumer])


class FakeRabbit:
    """The server; `url` once it listens."""

    def __init__(self) -> None:
        self.url = ""
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {}
        self.refused: list[str] = []
        """Declarations that it refused."""
        self.returns: list[str] = []
        """Methods by which messages came back."""
        self.clients: set[Client] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(self, writer)
        self.clients.add(client)
        data = b""
        try:
            while piece := await reader.read(65_536):
                data += piece
                while (one := frame.decode_frame(data))[0]:
                    data = data[one[0] :]
                    client.take(one[1])
                self.pump()
        except ConnectionError:
            pass
        finally:
            self.clients.discard(client)
            client.end()
            writer.close()
            self.pump()

    def time_out(self, queue: str) -> int:
        """End the subscriptions that hold messages of a queue for too long; how many."""
        found = 0
        for client in self.clients:
            for channel in client.channels.values():
                for consumer in [*channel.consumers.values()]:
                    if consumer.queue.name == queue and consumer.out:
                        found += 1
                        client.cancel(channel, consumer)
        self.pump()
        return found

    def route(self, exchange: str, key: str, stored: Stored) -> bool:
        """Put a message where it belongs; whether there is such a place."""
        names = reached(self.exchanges, exchange, key) if exchange else [key]
        queues = [self.queues[name] for name in dict.fromkeys(names) if name in self.queues]
        for queue in queues:
            self.put(queue, Stored(stored.properties, stored.body, stored.key))
        return bool(queues)

    def put(self, queue: Queue, stored: Stored) -> None:
        queue.waiting.append(stored)
        ttl = queue.arguments.get("x-message-ttl")
        if ttl is not None:
            asyncio.get_running_loop().call_later(ttl / 1e3, self._expire, queue, stored)

    def _expire(self, queue: Queue, stored: Stored) -> None:
        if stored in queue.waiting:
            queue.waiting.remove(stored)
            target = queue.arguments["x-dead-letter-routing-key"]
            self.route(queue.arguments["x-dead-letter-exchange"], target, stored)
            self.pump()

    def pump(self) -> None:
        """Deliver what can be delivered."""
        for client in [*self.clients]:
            for channel in client.channels.values():
                for consumer in channel.consumers.values():
                    client.feed(channel, consumer)


class Client:
    """A connection."""

    def __init__(self, server: FakeRabbit, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._writer = writer
        self.channels: dict[int, Channel] = {}
        self._publish: dict[int, spec.Basic.Publish] = {}
        self._parts: dict[int, tuple[BasicProperties, int, bytes]] = {}
        self._answers: dict[type, Callable[[Channel, Any], None]] = {
            spec.Exchange.Declare: self._exchange,
            spec.Queue.Declare: self._declare,
            spec.Queue.Bind: self._bind,
            spec.Exchange.Bind: self._bind_exchange,
            spec.Basic.Qos: self._qos,
            spec.Basic.Consume: self._consume,
            spec.Basic.Cancel: self._cancel,
            spec.Basic.Get: self._get,
            spec.Basic.Ack: self._ack,
            spec.Basic.Nack: self._nack,
            spec.Basic.Reject: self._reject,
            spec.Confirm.Select: self._select,
            spec.Channel.Close: self._close,
        }

    def take(self, one: Any) -> None:
        """One frame of the client."""
        if isinstance(one, frame.ProtocolHeader):
            self._send(0, spec.Connection.Start(0, 9, SAID, "PLAIN", "en_US"))
        elif isinstance(one, frame.Header):
            self._parts[one.channel_number] = (one.properties, one.body_size, b"")
            self._finish(one.channel_number)
        elif isinstance(one, frame.Body):
            properties, size, body = self._parts[one.channel_number]
            self._parts[one.channel_number] = (properties, size, body + one.fragment)
            self._finish(one.channel_number)
        elif isinstance(one, frame.Method):
            self._method(one.channel_number, one.method)

    def _method(self, number: int, method: Any) -> None:
        if isinstance(method, spec.Connection.StartOk):
            self._send(0, spec.Connection.Tune(100, FRAME_MAX, 0))
        elif isinstance(method, spec.Connection.Open):
            self._send(0, spec.Connection.OpenOk())
        elif isinstance(method, spec.Connection.Close):
            self._send(0, spec.Connection.CloseOk())
        elif isinstance(method, spec.Channel.Open):
            self.channels[number] = Channel(number)
            self._send(number, spec.Channel.OpenOk())
        elif isinstance(method, spec.Basic.Publish):
            self._publish[number] = method
        elif type(method) in self._answers and number in self.channels:
            self._answers[type(method)](self.channels[number], method)

    def _send(self, number: int, method: Any) -> None:
        self._writer.write(frame.Method(number, method).marshal())

    def _content(self, number: int, method: Any, stored: Stored) -> None:
        properties = stored.properties
        if stored.count:
            headers = {**(properties.headers or {}), "x-delivery-count": stored.count}
            properties = BasicProperties(
                headers=headers, content_type=properties.content_type, delivery_mode=2
            )
        self._send(number, method)
        self._writer.write(frame.Header(number, len(stored.body), properties).marshal())
        if stored.body:
            self._writer.write(frame.Body(number, stored.body).marshal())

    # Publishing

    def _finish(self, number: int) -> None:
        properties, size, body = self._parts[number]
        if len(body) < size:
            return
        del self._parts[number]
        method, channel = self._publish.pop(number), self.channels.get(number)
        if channel is None:
            return
        if method.exchange and method.exchange not in self._server.exchanges:
            self._fail(channel, 404, f"NOT_FOUND - no exchange '{method.exchange}' in vhost '/'")
            return
        stored = Stored(properties, body, method.routing_key)
        if not self._server.route(method.exchange, method.routing_key, stored) and method.mandatory:
            back = spec.Basic.Return(312, "NO_ROUTE", method.exchange, method.routing_key)
            self._content(number, back, stored)
        if channel.confirms >= 0:
            self._send(number, spec.Basic.Ack(channel.confirms))
            channel.confirms += 1

    def _select(self, channel: Channel, _: object) -> None:
        channel.confirms = 1
        self._send(channel.number, spec.Confirm.SelectOk())

    # Topology

    def _fail(self, channel: Channel, code: int, text: str) -> None:
        self._end_channel(channel)
        self._send(channel.number, spec.Channel.Close(code, text, 0, 0))

    def _exchange(self, channel: Channel, method: spec.Exchange.Declare) -> None:
        rest = (method.arguments or {}).get("alternate-exchange", "")
        self._server.exchanges.setdefault(method.exchange, Exchange(method.type, rest))
        self._send(channel.number, spec.Exchange.DeclareOk())

    def _declare(self, channel: Channel, method: spec.Queue.Declare) -> None:
        name, queues = method.queue, self._server.queues
        if method.passive and name not in queues:
            self._fail(channel, 404, f"NOT_FOUND - no queue '{name}' in vhost '/'")
            return
        if not (method.passive or method.durable or method.exclusive):
            self._server.refused.append(name)
            self._fail(channel, 541, "INTERNAL_ERROR - transient_nonexcl_queues is deprecated")
            return
        queue = queues.setdefault(name, Queue(name, dict(method.arguments or {})))
        count = 0 if queue.is_stream else len(queue.waiting)
        users = sum(
            one.queue is queue
            for client in self._server.clients
            for other in client.channels.values()
            for one in other.consumers.values()
        )
        self._send(channel.number, spec.Queue.DeclareOk(name, count, users))

    def _bind(self, channel: Channel, method: spec.Queue.Bind) -> None:
        self._server.exchanges[method.exchange].queues[method.routing_key, method.queue] = None
        self._send(channel.number, spec.Queue.BindOk())

    def _bind_exchange(self, channel: Channel, method: spec.Exchange.Bind) -> None:
        bound = (method.routing_key, method.destination)
        self._server.exchanges[method.source].exchanges[bound] = None
        self._send(channel.number, spec.Exchange.BindOk())

    # Consuming

    def _qos(self, channel: Channel, method: spec.Basic.Qos) -> None:
        channel.prefetch = method.prefetch_count
        self._send(channel.number, spec.Basic.QosOk())

    def _consume(self, channel: Channel, method: spec.Basic.Consume) -> None:
        tag = method.consumer_tag
        queue = self._server.queues.get(method.queue)
        if queue is None:
            self._fail(channel, 404, f"NOT_FOUND - no queue '{method.queue}' in vhost '/'")
            return
        start = (method.arguments or {}).get("x-stream-offset", 0)
        offset = start if isinstance(start, int) else 0
        channel.consumers[tag] = Consumer(tag, queue, channel.prefetch, offset)
        self._send(channel.number, spec.Basic.ConsumeOk(tag))

    def feed(self, channel: Channel, consumer: Consumer) -> None:
        """Deliver up to its prefetch."""
        queue = consumer.queue
        while consumer.out < (consumer.prefetch or 1_000):
            if queue.is_stream:
                if consumer.offset >= len(queue.waiting):
                    return
                old = queue.waiting[consumer.offset]
                headers = {**(old.properties.headers or {}), "x-stream-offset": consumer.offset}
                stored = Stored(BasicProperties(headers=headers), old.body, old.key)
                consumer.offset += 1
            elif queue.waiting:
                stored = queue.waiting.popleft()
            else:
                return
            tag = next(channel.tags)
            channel.unacked[tag] = (consumer, queue, stored)
            consumer.out += 1
            method = spec.Basic.Deliver(consumer.tag, tag, stored.is_back, "", stored.key)
            self._content(channel.number, method, stored)

    def _get(self, channel: Channel, method: spec.Basic.Get) -> None:
        queue = self._server.queues[method.queue]
        if not queue.waiting:
            self._send(channel.number, spec.Basic.GetEmpty())
            return
        stored, tag = queue.waiting.popleft(), next(channel.tags)
        channel.unacked[tag] = (None, queue, stored)
        found = spec.Basic.GetOk(tag, stored.is_back, "", stored.key, len(queue.waiting))
        self._content(channel.number, found, stored)

    def cancel(self, channel: Channel, consumer: Consumer) -> None:
        """What 4.3 does at the consumer timeout: its messages go back, and it is told."""
        del channel.consumers[consumer.tag]
        mine = [tag for tag, (of, _, _) in channel.unacked.items() if of is consumer]
        self._back(channel, mine, is_counted=False)
        self._send(channel.number, spec.Basic.Cancel(consumer.tag))

    def _cancel(self, channel: Channel, method: spec.Basic.Cancel) -> None:
        channel.consumers.pop(method.consumer_tag, None)
        self._send(channel.number, spec.Basic.CancelOk(method.consumer_tag))

    def _tags(self, channel: Channel, tag: int, *, multiple: bool) -> list[int]:
        if not multiple:
            return [tag] if tag in channel.unacked else []
        return [one for one in channel.unacked if one <= tag]

    def _ack(self, channel: Channel, method: spec.Basic.Ack) -> None:
        for tag in self._tags(channel, method.delivery_tag, multiple=method.multiple):
            consumer, _, _ = channel.unacked.pop(tag)
            if consumer is not None:
                consumer.out -= 1

    def _nack(self, channel: Channel, method: spec.Basic.Nack) -> None:
        self._server.returns.append("nack")
        tags = self._tags(channel, method.delivery_tag, multiple=method.multiple)
        self._back(channel, tags, is_counted=False)

    def _reject(self, channel: Channel, method: spec.Basic.Reject) -> None:
        self._server.returns.append("reject")
        self._back(channel, [method.delivery_tag], is_counted=True)

    def _back(self, channel: Channel, tags: list[int], *, is_counted: bool) -> None:
        for tag in sorted(tags, reverse=True):
            consumer, queue, stored = channel.unacked.pop(tag)
            if consumer is not None:
                consumer.out -= 1
            if not queue.is_stream:
                stored.is_back = True
                stored.count += is_counted
                queue.waiting.appendleft(stored)

    # Ends

    def _close(self, channel: Channel, _: object) -> None:
        self._end_channel(channel)
        self._send(channel.number, spec.Channel.CloseOk())

    def _end_channel(self, channel: Channel) -> None:
        self.channels.pop(channel.number, None)
        channel.consumers.clear()
        self._back(channel, [*channel.unacked], is_counted=True)

    def end(self) -> None:
        """The connection is gone: all of it goes back, counted."""
        for channel in [*self.channels.values()]:
            self._end_channel(channel)


@asynccontextmanager
async def fake_rabbitmq() -> AsyncGenerator[FakeRabbit]:
    """A server on a free port."""
    server = FakeRabbit()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"amqp://guest:guest@127.0.0.1:{port}/"
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()
        while server.clients:
            await asyncio.sleep(0.01)  # their ends are on the way
