"""The connection beneath the RabbitMQ adapter: pika's, with our reading, writing and transport.

It uses what pika calls private. When pika changes that, this says so.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from pika import BasicProperties, ConnectionParameters, spec
from pika.frame import Body, Header, Heartbeat, Method, decode_frame

from callcast.brokers.rabbitmq import frames, stream
from callcast.brokers.rabbitmq.connection import Connection
from callcast.brokers.rabbitmq.deliveries import Came

HANDSHAKE = (
    spec.Connection.Start(0, 9, {"version": "4.0.5"}, "PLAIN", "en_US"),
    spec.Connection.Tune(channel_max=100, frame_max=8192, heartbeat=0),
    spec.Connection.OpenOk(),
)


class Transport:
    """What pika and we ask of one."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.is_aborted = True


class Wire:
    """A connection that is open, and the broker's end of it."""

    def __init__(self) -> None:
        self.ended: list[Exception] = []
        self.transport = Transport()
        self.connection = Connection(
            ConnectionParameters(heartbeat=0),
            loop=asyncio.get_running_loop(),
            on_close_callback=lambda _, error: self.ended.append(error),
            internal_connection_workflow=False,
        )
        self.connection._proto_connection_made(self.transport)  # type: ignore[attr-defined]
        for method in HANDSHAKE:
            self.bring(Method(0, method).marshal())

    def bring(self, data: bytes) -> None:
        """Something comes from the broker."""
        self.connection._proto_data_received(data)  # type: ignore[attr-defined]

    async def consumer(
        self, on_came: Callable[[Came], None], pika_took: Callable[..., None]
    ) -> None:
        """Channel 1, with a consumer whose tag is ``1.0``."""
        channel = self.connection.channel(on_open_callback=lambda _: None)
        self.bring(Method(1, spec.Channel.OpenOk()).marshal())
        channel.basic_consume("orders", pika_took, consumer_tag="1.0")
        self.bring(Method(1, spec.Basic.ConsumeOk("1.0")).marshal())
        self.connection.takers[b"1.0"] = on_came
        await asyncio.sleep(0)
        self.transport.written.clear()


def delivery(number: int, body: bytes, *, consumer: str = "1.0") -> bytes:
    properties = BasicProperties(
        "text/plain", headers={"n": str(number)}, delivery_mode=2, timestamp=1
    )
    method = spec.Basic.Deliver(consumer, number, False, "orders", "all")
    parts = [body[start : start + 8184] for start in range(0, len(body), 8184)]
    return b"".join(
        (
            Method(1, method).marshal(),
            Header(1, len(body), properties).marshal(),
            *(Body(1, part).marshal() for part in parts),
        )
    )


async def test_it_opens_as_pika_does() -> None:
    wire = Wire()
    await asyncio.sleep(0)
    assert wire.connection.is_open
    assert wire.connection.body_max == 8192 - frames.AROUND
    assert b"".join(wire.transport.written).startswith(b"AMQP\x00\x00\x09\x01")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1_000, 100_000])
async def test_what_comes_in_pieces_of_any_size_is_taken_in_order(size: int) -> None:
    """Deliveries past pika, and by pika where one is long; a heartbeat and confirms among them."""
    wire = Wire()
    came: list[tuple[int, bytes]] = []
    confirmed: list[tuple[int, bool]] = []
    await wire.consumer(
        lambda one: came.append((one.tag, one.body)),
        lambda _, method, properties, body: came.append((method.delivery_tag, body)),
    )
    wire.connection.confirmed[1] = lambda number, multiple: confirmed.append((number, multiple))
    bodies = [b"a", b"", b"b" * 8184, b"c" * 8185, b"d" * 20_000, b"e"]
    sent = b"".join(
        (
            delivery(number, body)
            + Heartbeat().marshal()
            + Method(1, spec.Basic.Ack(number, multiple=True)).marshal()
        )
        for number, body in enumerate(bodies, 1)
    )
    for start in range(0, len(sent), size):
        wire.bring(sent[start : start + size])
    assert came == list(enumerate(bodies, 1))
    assert confirmed == [(number, True) for number in range(1, len(bodies) + 1)]
    assert wire.connection.bytes_received > len(sent)  # by which heartbeats know that it lives


async def test_what_waits_for_the_end_of_a_read_is_called_once_behind_all_that_came_with_it() -> (
    None
):
    wire = Wire()
    seen: list[int | str] = []

    def take(one: Came) -> None:
        if one.tag % 2:
            wire.connection.after_read(lambda: seen.append("all"))
        seen.append(one.tag)

    await wire.consumer(take, pytest.fail)
    wire.bring(delivery(1, b"a") + delivery(2, b"b") + delivery(3, b"c")[:50])
    assert seen == [1, 2, "all"]
    wire.bring(delivery(3, b"c")[50:])
    assert seen == [1, 2, "all", 3, "all"]


async def test_an_error_while_something_is_taken_keeps_nobody_waiting() -> None:
    wire = Wire()
    seen: list[str] = []

    def take(_: Came) -> None:
        wire.connection.after_read(lambda: seen.append("all"))
        raise LookupError

    await wire.consumer(take, pytest.fail)
    with pytest.raises(LookupError):
        wire.bring(delivery(1, b"a"))
    assert seen == ["all"]


async def test_a_consumer_that_nobody_has_taken_over_is_pikas() -> None:
    wire = Wire()
    theirs: list[bytes] = []
    await wire.consumer(pytest.fail, lambda _, method, properties, body: theirs.append(body))
    wire.connection.takers.clear()
    wire.bring(delivery(1, b"one"))
    assert theirs == [b"one"]


async def test_the_frames_of_one_turn_leave_together() -> None:
    wire = Wire()
    await wire.consumer(pytest.fail, pytest.fail)
    channel = wire.connection.channel(2, on_open_callback=lambda _: None)
    wire.bring(Method(2, spec.Channel.OpenOk()).marshal())
    for tag in (1, 2, 3):
        channel.basic_ack(tag)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    [*_, last] = wire.transport.written
    assert last.endswith(b"".join(Method(2, spec.Basic.Ack(tag)).marshal() for tag in (1, 2, 3)))


async def test_what_is_written_at_once_leaves_behind_what_was_said_before() -> None:
    wire = Wire()
    await wire.consumer(pytest.fail, pytest.fail)
    channel = wire.connection.channel(2, on_open_callback=lambda _: None)
    wire.bring(Method(2, spec.Channel.OpenOk()).marshal())
    await asyncio.sleep(0)
    wire.transport.written.clear()
    channel.basic_ack(1)
    wire.connection.write(b"publishes")
    assert wire.transport.written == [Method(2, spec.Basic.Ack(1)).marshal() + b"publishes"]
    await asyncio.sleep(0)
    assert len(wire.transport.written) == 1


async def test_dropped_it_closes_its_transport_and_says_so() -> None:
    wire = Wire()
    wire.connection.abort()
    assert wire.transport.is_aborted
    wire.connection._proto_connection_lost(None)  # type: ignore[attr-defined]
    assert [str(error) for error in wire.ended] == ["dropped"]
    wire.connection.write(b"too late")  # to nobody
    assert b"too late" not in wire.transport.written


async def test_a_stream_reads_nothing_before_pika_listens_and_then_all() -> None:
    """What a server says before it is asked is no AMQP, and pika tells so."""
    here, there = socket.socketpair()
    here.setblocking(False)
    there.sendall(b"SSH-2.0-OpenSSH_9\r\n")
    heard: list[bytes] = []
    ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    class Protocol:
        def connection_made(self, transport: Any) -> None:
            transport.write(b"AMQP")

        def data_received(self, data: bytes) -> None:
            heard.append(data)

        def eof_received(self) -> bool:
            return False

        def connection_lost(self, error: BaseException | None) -> None:
            ended.set_result(error)

    linked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    streams = stream.services(asyncio.get_running_loop())
    streams.create_streaming_connection(Protocol, here, linked.set_result)  # type: ignore[arg-type]
    transport, _ = await linked
    assert transport.get_write_buffer_size() == 0
    assert there.recv(100) == b"AMQP"
    while not heard:
        await asyncio.sleep(0)
    assert heard == [b"SSH-2.0-OpenSSH_9\r\n"]
    there.close()
    assert await ended is None


async def test_what_pika_cannot_begin_is_told_to_whoever_opens_it() -> None:
    here, there = socket.socketpair()
    here.setblocking(False)

    class Broken:
        def connection_made(self, transport: Any) -> None:
            raise ValueError("no")

        def connection_lost(self, error: BaseException | None) -> None:
            """Told to nobody."""

    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    streams = stream.services(asyncio.get_running_loop())
    streams.create_streaming_connection(Broken, here, told.set_result)  # type: ignore[arg-type]
    assert isinstance(await told, ValueError)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert there.recv(1) == b""
    there.close()


def test_a_protocol_header_is_the_refusal_of_another_version() -> None:
    """A server that speaks another version answers with its own, and closes."""
    refusal = b"AMQP\x00\x00\x09\x01"
    assert frames.end_of(refusal, 0) == len(refusal)
    count, frame = decode_frame(refusal)
    assert count == len(refusal)
    assert frame is not None
