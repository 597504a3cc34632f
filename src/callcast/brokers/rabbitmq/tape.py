"""A stream that everybody reads from its beginning and adds to: what AMQP itself cannot be asked.

Its records have one order for all readers. To know that nothing is left to read one adds a mark
and reads until it comes: a stream does not tell where its end is. While an alarm of the broker
stops all publishes, silence has to say so: workers must be able to start then, since only they
make it end.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from pika import BasicProperties, spec

from callcast.brokers.rabbitmq.confirms import Fate
from callcast.brokers.rabbitmq.faults import ChannelLost, is_refused_at, of_refusal
from callcast.brokers.rabbitmq.letters import Letter
from callcast.brokers.rabbitmq.link import Link
from callcast.brokers.rabbitmq.names import Arguments
from callcast.brokers.rabbitmq.port import Loop, close_quietly, fail, fulfil
from callcast.brokers.rabbitmq.sender import Sender
from callcast.core.errors import Unavailable

PREFETCH = 500
WHOLE_AFTER = 500
"""Records after which a whole one is added: far fewer than a stream holds before it is cut."""
READ_MAX = 30.0
"""Seconds that reading to the end may take."""
QUIET = 1.0
"""Seconds without a record that are taken for the end while no mark can be added."""
NO_REPLICA = "running replica"
"""What a node of a cluster says that was started a moment ago."""
PAUSE = 0.25
"""Seconds until it is asked again."""


class Blocked(Unavailable):
    """The broker takes no publishes."""


class Tape:
    """A stream and how far it was read here.

    `fold` is told each record once, in their order, with its offset. `whole` gives one that stands
    for all up to an offset, where old ones are cut off the stream and must not be missed.
    """

    def __init__(
        self,
        name: str,
        arguments: Arguments,
        roll: Roll,
        *,
        fold: Callable[[dict[str, Any], int], None],
        whole: Callable[[int], dict[str, Any]] | None = None,
    ) -> None:
        self._name = name
        self._arguments = arguments
        self._fold = fold
        self._roll = roll
        self._whole = whole
        self._since = 0  # records that would have to be read after the last whole one
        self._next = -1  # the offset to read from; -1 is the first there is
        self._reading = asyncio.Lock()
        self._is_declared = False

    async def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Add records; they are durable on return. Raises `Unavailable`, also under an alarm."""
        await self._declare()
        letters = [self._letter(record) for record in records]
        answers = await self._roll.sender.send_unless_blocked(letters)
        if answers is None:
            raise Blocked(
                f"RabbitMQ at {self._roll.link.endpoint} has an alarm and takes no messages: see"
                " 'rabbitmq-diagnostics alarms', and free memory or disk"
            )
        for answer in answers:
            if isinstance(answer, ChannelLost) and is_refused_at(answer, ""):
                what = f"write to the stream {self._name!r}"
                raise of_refusal(answer, what, self._roll.link.endpoint) from answer
        if any(answer is not Fate.CONFIRMED for answer in answers):
            raise Unavailable(f"the stream {self._name!r} did not take a record: {answers}")

    async def catch_up(self) -> None:
        """Read all that was added before this call. Raises `Unavailable`."""
        async with self._reading:
            mark = secrets.token_hex(8)
            try:
                await self.add([{"mark": mark}])
            except Blocked:
                mark = ""
            try:
                async with asyncio.timeout(READ_MAX):
                    await self._read_patiently(mark)
                if mark and self._whole is not None and self._since > WHOLE_AFTER:
                    await self.add([self._whole(self._next - 1)])
            except TimeoutError as error:
                raise Unavailable(
                    f"the stream {self._name!r} was not read to its end within {READ_MAX:g} s"
                ) from error
            except ChannelLost as error:
                raise Unavailable(f"the stream {self._name!r} cannot be read: {error}") from error

    async def _declare(self) -> None:
        if self._is_declared:
            return
        port = await self._roll.link.channel()
        try:
            await port.declare(self._name, self._arguments)
        except ChannelLost as error:
            what = f"declare the stream {self._name!r}"
            raise of_refusal(error, what, self._roll.link.endpoint) from error
        finally:
            await close_quietly(port)
        self._is_declared = True

    async def _read_patiently(self, mark: str) -> None:
        while True:
            try:
                return await self._read_to(mark)
            except ChannelLost as error:
                if NO_REPLICA not in error.text:
                    raise
            woken: asyncio.Future[None] = self._roll.loop.create_future()
            self._roll.loop.call_later(PAUSE, fulfil, woken, None)
            await woken

    async def _read_to(self, mark: str) -> None:
        """Read until this mark has come; without one, until nothing more comes."""
        port = await self._roll.link.channel()
        came: asyncio.Future[None] = self._roll.loop.create_future()
        quiet = asyncio.timeout(None)

        def on_message(
            method: spec.Basic.Deliver, properties: BasicProperties, body: bytes
        ) -> None:
            port.ack(method.delivery_tag or 0)
            offset = int((properties.headers or {}).get("x-stream-offset", 0))
            if offset < self._next:
                return
            self._next = offset + 1
            if not mark:
                quiet.reschedule(self._roll.loop.time() + QUIET)
            record = _record(body)
            self._since = 0 if "whole" in record else self._since + 1
            self._fold(record, offset)
            if mark and record.get("mark") == mark:
                fulfil(came, None)

        port.on_lost(lambda error: fail(came, error))
        try:
            start = "first" if self._next < 0 else self._next
            async with quiet:  # the first record may come before the answer to `consume`
                await port.consume(
                    self._name, on_message, prefetch=PREFETCH, arguments={"x-stream-offset": start}
                )
                if not mark:
                    quiet.reschedule(self._roll.loop.time() + QUIET)
                await came
        except TimeoutError:
            if not quiet.expired():
                raise
        finally:
            await close_quietly(port)

    def _letter(self, record: dict[str, Any]) -> Letter:
        body = msgspec.json.encode(record)
        return Letter("", self._name, "", BasicProperties(delivery_mode=2, message_id=""), body)


def _record(body: bytes) -> dict[str, Any]:
    """What stands there; nothing of what is no record: nobody could start any more otherwise."""
    try:
        record: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except (ValueError, RecursionError):
        return {}
    return record


class Roll(NamedTuple):
    """What a tape needs: where to read, where to write."""

    link: Link
    sender: Sender
    loop: Loop
