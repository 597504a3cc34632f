"""The stream of what was published to a topic: read again, without consuming or counting.

A stream does not tell where its end is. When nothing more comes for a moment, a mark is added to
it; what comes before the mark was there.

A window in time is by the clocks of those who published, and a stream is entered at a time of the
server's clock, which may be another one by any amount. So it is entered well before the window, and
again earlier, until what comes first there was published before the window.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from pika import BasicProperties, spec

from callcast.brokers.rabbitmq.confirms import Fate
from callcast.brokers.rabbitmq.faults import ChannelLost, is_refused_at
from callcast.brokers.rabbitmq.fitting import fitted
from callcast.brokers.rabbitmq.house import House
from callcast.brokers.rabbitmq.letters import Letter, letter
from callcast.brokers.rabbitmq.names import Names, log_name
from callcast.brokers.rabbitmq.port import close_quietly
from callcast.brokers.rabbitmq.wire import Frame, headers_of, read
from callcast.core.errors import Misuse, Unavailable
from callcast.ports.broker import Glimpse, Source, Start

SILENCE = 0.05
"""Seconds without a message after which it is asked where the end is."""
END_WAIT = 10.0
"""Seconds for the mark to come."""
PREFETCH = 500
BACK = (60.0, 3_600.0, 86_400.0)
"""Seconds before a window at which its stream is entered, one after the other; then at its start.
By a minute clocks differ where nobody looks after them."""
MARK = "callcast-mark"
"""The AMQP type of a message that is none."""


class Window(Struct, frozen=True):
    """Which messages are wanted: published in ``since <= time < until``, between two positions."""

    topic: str
    since: float
    until: float
    after: int
    last: float

    def takes(self, glimpse: Glimpse) -> bool:
        """Whether this one is wanted."""
        return self.since <= (glimpse.at or 0.0) < self.until


def window(topic: str, times: tuple[float, float | None], between: tuple[str, str]) -> Window:
    """A window from what the caller says; raises `Misuse` for a position that is none."""
    since, until = times
    after, last = (_position(text) for text in between)
    return Window(
        topic,
        since,
        math.inf if until is None else until,
        -1 if after is None else after,
        math.inf if last is None else last,
    )


async def pages(house: House, wanted: Window, limit: int) -> list[Glimpse]:
    """The oldest `limit` kept messages of a window. On the thread's loop."""
    if wanted.after < 0 and wanted.since > 0:
        for back in BACK:
            reader = _Reader(house, wanted, limit, enter=wanted.since - back)
            found = await reader.run()
            if reader.has_begun_before:
                return found
    return await _Reader(house, wanted, limit).run()


async def catch_up(house: House, new: Sequence[Source], retain: float) -> None:
    """Give groups that start at the earliest what is kept. What comes meanwhile may come twice."""
    for source in new:
        if source.start is Start.EARLIEST and retain > 0:
            await _copy_to(house, source)


async def _copy_to(house: House, source: Source) -> None:
    names, after = Names(source), -1
    while True:
        wanted = Window(source.topic, 0.0, math.inf, after, math.inf)
        page = await pages(house, wanted, PREFETCH)
        if not page:
            return
        letters: list[Letter] = []
        for one in page:
            place = ("", names.queue_of(one.message))
            table = headers_of(one.message)
            copy = letter(place, one.message, table, published=one.at or 0.0)
            letters.append(fitted(copy))
        answers = await house.sender.send(letters)
        if any(answer is not Fate.CONFIRMED for answer in answers):
            raise Unavailable(f"{source} was made, but did not get all that is kept: ensure again")
        after = int(page[-1].position)


class _Reader:
    """One look into a stream."""

    def __init__(
        self, house: House, wanted: Window, limit: int, *, enter: float | None = None
    ) -> None:
        self.has_begun_before = False
        """Whether something that was published before the window came first; it ends if not."""
        self._enter = enter
        self._house = house
        self._wanted = wanted
        self._limit = limit
        self._mark = secrets.token_hex(8)
        self._found: list[Glimpse] = []
        self._moved = asyncio.Event()  # something came, or the end
        self._is_over = False
        self._lost: ChannelLost | None = None

    async def run(self) -> list[Glimpse]:
        """Read until the window or the stream ends, or the limit is reached."""
        name = log_name(self._wanted.topic)
        if name not in await self._house.topology.counts([name]):
            return []
        port = await self._house.feed.channel()
        port.on_lost(self._lose)

        def on_message(
            method: spec.Basic.Deliver, properties: BasicProperties, body: bytes
        ) -> None:
            port.ack(method.delivery_tag or 0)
            if not self._is_over:
                self._take(properties, body)
            self._moved.set()

        try:
            await port.consume(
                name, on_message, prefetch=PREFETCH, arguments={"x-stream-offset": self._start()}
            )
            await self._wait(name)
        except ChannelLost as error:
            raise self._house.topology.refused(error, f"read the stream {name!r}") from error
        finally:
            await close_quietly(port)
        if self._lost is not None and not self._is_over:
            raise self._house.topology.refused(self._lost, f"read the stream {name!r}")
        return self._found

    async def _wait(self, name: str) -> None:
        is_marked = False
        while not self._is_over and self._lost is None:
            self._moved.clear()
            try:
                async with asyncio.timeout(END_WAIT if is_marked else SILENCE):
                    await self._moved.wait()
            except TimeoutError as error:
                if is_marked:
                    raise Unavailable(
                        f"the end of the stream {name!r} did not come within {END_WAIT:g} s"
                    ) from error
                is_marked = True
                await self._add_mark(name)

    async def _add_mark(self, name: str) -> None:
        properties = BasicProperties(type=MARK, message_id=self._mark, delivery_mode=2)
        mark = Letter("", name, self._mark, properties, b"")
        [answer] = await self._house.sender.send([mark])
        if isinstance(answer, ChannelLost) and is_refused_at(answer, ""):
            raise self._house.topology.refused(answer, f"write to the stream {name!r}")

    def _take(self, properties: BasicProperties, body: bytes) -> None:
        headers: dict[str, Any] = dict(properties.headers or {})
        offset = int(headers.get("x-stream-offset", 0))
        if properties.type == MARK:
            self._is_over = properties.message_id == self._mark
        elif offset > self._wanted.last:
            self._is_over = True
        elif offset > self._wanted.after:
            frame = Frame.of(self._wanted.topic, properties.content_type, properties.timestamp)
            arrived = read(headers, body, frame)
            seen = Glimpse(arrived.message, position=str(offset), at=arrived.published)
            self.has_begun_before |= arrived.published < self._wanted.since
            if self._enter is not None and not self.has_begun_before:
                self._is_over = True
            elif self._wanted.takes(seen):
                self._found.append(seen)
                self._is_over = len(self._found) >= self._limit

    def _start(self) -> object:
        if self._wanted.after >= 0:
            return self._wanted.after + 1
        if self._enter is not None:
            return datetime.fromtimestamp(max(0, math.floor(self._enter)), UTC)
        return "first"

    def _lose(self, error: ChannelLost) -> None:
        self._lost = error
        self._moved.set()


def _position(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal():
        raise Misuse(f"position {text!r} is none: on RabbitMQ it is an offset, a number")
    return int(text)
