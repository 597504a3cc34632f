"""Publishing: written one after the other, confirmed when the broker pleases, all answered."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct
from pika import BasicProperties, spec
from pika.exceptions import AMQPError

from callcast.brokers.rabbitmq.confirms import Confirms, Fate
from callcast.brokers.rabbitmq.faults import ChannelLost
from callcast.brokers.rabbitmq.letters import Letter
from callcast.brokers.rabbitmq.link import Link
from callcast.brokers.rabbitmq.port import Loop, Port, fulfil
from callcast.brokers.rabbitmq.thread import Reply

WINDOW = 4_000
"""Publishes that may wait for their confirm at once."""
PIECE = 50
"""Publishes between two turns of the loop."""

Answer: TypeAlias = Fate | Exception
"""How a publish ended; an exception is why it was not written at all."""


class Sender:
    """Publishes over one channel of a connection that does nothing else.

    An alarm of the broker stops connections that publish, so nothing else may use this one:
    acknowledgements must go on. `prepare` is awaited before anything is published over a new
    connection: the server may have been killed, and have forgotten where messages go.
    """

    def __init__(self, link: Link, loop: Loop, *, prepare: Callable[[], Awaitable[None]]) -> None:
        self._link = link
        self._loop = loop
        self._prepare = prepare
        self._prepared: object = None  # the connection for which it was done
        self._port: Port | None = None
        self._opening = asyncio.Lock()
        self._confirms: Confirms[_Slot] = Confirms()
        self._room: list[asyncio.Future[None]] = []

    def post(self, letters: Sequence[Letter]) -> Reply[list[Answer]] | None:
        """Publish all at once, if nothing is in the way; else None: `send` them."""
        port, confirms = self._port, self._confirms
        is_free = port is not None and port.lost is None and not self._link.is_blocked
        if port is None or not is_free or len(confirms) + len(letters) > WINDOW:
            return None
        batch = _Batch(letters)
        for start in range(0, len(letters), PIECE):
            _write((port, confirms), batch, range(start, min(start + PIECE, len(letters))))
        return batch.ended

    async def send(self, letters: Sequence[Letter]) -> list[Answer]:
        """Publish all; what became of each. Raises `CallcastError` when there is no connection.

        Waits while the broker has an alarm. Cancelled, what is not written yet is not sent.
        """
        batch = _Batch(letters)
        port, confirms = await self._ready()
        start = 0
        while start < len(letters):
            while port.lost is None and (len(confirms) >= WINDOW or self._link.is_blocked):
                await self._wait_for_room()
            count = PIECE if port.lost is not None else min(PIECE, WINDOW - len(confirms))
            indexes = range(start, min(start + count, len(letters)))
            _write((port, confirms), batch, indexes)
            start = indexes.stop
            await self._turn()
        ended: asyncio.Future[list[Answer]] = self._loop.create_future()
        batch.ended.then(lambda answers: fulfil(ended, answers))
        return await ended

    async def send_unless_blocked(self, letters: Sequence[Letter]) -> list[Answer] | None:
        """The same, but None as soon as the broker has an alarm: they may arrive when it ends."""
        sending = self._loop.create_task(self.send(letters))
        alarm = self._loop.create_task(self._link.blocked())
        try:
            await asyncio.wait({sending, alarm}, return_when=asyncio.FIRST_COMPLETED)
            return await sending if sending.done() else None
        finally:
            sending.cancel()
            alarm.cancel()

    async def _ready(self) -> tuple[Port, Confirms[_Slot]]:
        async with self._opening:
            port = self._port
            if port is None or port.lost is not None:
                port = self._port = await self._open()
            return port, self._confirms

    async def _open(self) -> Port:
        port = await self._link.channel()
        connection = self._link.token
        if connection is not self._prepared:
            await self._prepare()
            self._prepared = connection
        confirms = self._confirms = Confirms[_Slot]()

        def acked(number: int, multiple: bool) -> None:  # noqa: FBT001 - as the frame says
            _end_all(confirms.ack(number, multiple=multiple))
            self._let_in()

        def nacked(number: int, multiple: bool) -> None:  # noqa: FBT001 - as the frame says
            _end_all(confirms.nack(number, multiple=multiple))
            self._let_in()

        def returned(method: spec.Basic.Return, properties: BasicProperties) -> None:
            headers = properties.headers or {}
            key, id_ = str(method.routing_key), headers.get("ce-id", properties.message_id)
            confirms.returned(confirms.find(lambda slot: slot.is_it(key, id_)))

        def lost(error: ChannelLost) -> None:
            ended = confirms.lost()
            for slot, _ in ended:
                slot.batch.lost = error
            _end_all(ended)
            self._let_in()

        port.on_lost(lost)
        await port.confirm(acked, nacked, returned)
        return port

    async def _turn(self) -> None:
        """Let what was written leave: the broker works on it while the next ones are encoded."""
        turned: asyncio.Future[None] = self._loop.create_future()
        self._loop.call_soon(turned.set_result, None)
        await turned

    async def _wait_for_room(self) -> None:
        if self._link.is_blocked:
            await self._link.unblocked()
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._room.append(waiter)
        await waiter

    def _let_in(self) -> None:
        waiting, self._room = self._room, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


class _Batch:
    """Publishes that are awaited together."""

    def __init__(self, letters: Sequence[Letter]) -> None:
        self.letters: Sequence[Letter] = letters
        self._answers: list[Answer] = [Fate.UNKNOWN] * len(letters)
        self._left = len(letters)
        self.ended: Reply[list[Answer]] = Reply()
        self.lost: ChannelLost | None = None
        if not letters:
            self.ended.end([])

    def end(self, index: int, answer: Answer) -> None:
        """One has ended."""
        self._answers[index] = answer
        self._left -= 1
        if self._left == 0:
            self.ended.end(self._answers)


class _Slot(Struct, frozen=True, gc=False):
    """One publish of a batch."""

    batch: _Batch
    number: int

    def is_it(self, key: str, id_: object) -> bool:
        """Whether this is what was returned."""
        letter = self.batch.letters[self.number]
        return letter.key == key and letter.id == id_


def _write(to: tuple[Port, Confirms[_Slot]], batch: _Batch, indexes: Iterable[int]) -> None:
    """Write these of a batch, and take note of them: both or neither, or numbers would shift."""
    port, confirms = to
    publishes: list[bytes] = []
    written: list[_Slot] = []
    letters, lost = batch.letters, port.lost
    for index in indexes:
        if lost is not None:
            batch.end(index, lost)
            continue
        try:
            publishes.append(port.frames_of(letters[index]))
        except (AMQPError, UnicodeError, struct.error, TypeError, AssertionError) as error:
            batch.end(index, error)  # the codec's: nothing of it was written
        else:
            written.append(_Slot(batch, index))
    if publishes:
        port.write(publishes)
        for slot in written:
            confirms.sent(slot)


def _end_all(ended: Sequence[tuple[_Slot, Fate]]) -> None:
    for slot, fate in ended:
        batch = slot.batch
        lost = batch.lost if fate is Fate.UNKNOWN else None
        batch.end(slot.number, lost or fate)
