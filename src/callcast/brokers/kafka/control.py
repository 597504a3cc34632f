"""Which groups there are and which are paused: a compacted topic that every process reads.

| key                     | value                                            |
|-------------------------|--------------------------------------------------|
| ``group/TOPIC/GROUP``   | what `ensure` was told, as JSON; null: retired   |
| ``pause/TOPIC/GROUP``   | anything; null: resumed                          |
| ``heard/TOPIC``         | anything: it has had a group that was retired    |
| ``made/TOPIC``          | anything: `ensure` made it, so we may trim it    |
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.cimpl import NewTopic

from callcast.brokers.kafka.link import Link
from callcast.brokers.kafka.names import CONTROL
from callcast.brokers.kafka.sender import Parcel
from callcast.brokers.kafka.wire import Record
from callcast.ports.broker import Source

LOOK = 1.0
"""Seconds between two looks: a pause binds within 5 s."""

_PLACE = (CONTROL, 0)


class Roll:
    """What the records of the control topic say."""

    def __init__(self) -> None:
        self.sources: dict[tuple[str, str], Source] = {}
        self.paused: set[tuple[str, str]] = set()
        self._heard: set[str] = set()
        self._made: set[str] = set()

    def apply(self, records: Iterable[Record]) -> None:
        """Take in records, in their order; what is not ours is left alone."""
        for record in records:
            kind, _, rest = (record.key or b"").decode("utf-8", "replace").partition("/")
            topic, _, group = rest.partition("/")
            name = (topic, group)
            if kind == "pause":
                if record.value is None:
                    self.paused.discard(name)
                else:
                    self.paused.add(name)
            elif kind == "group":
                self._enrol(name, record.value)
            elif kind == "heard":
                self._heard.add(topic)
            elif kind == "made":
                self._made.add(topic)

    def _enrol(self, name: tuple[str, str], value: bytes | None) -> None:
        if value is None:
            self.sources.pop(name, None)
            return
        try:
            self.sources[name] = msgspec.json.decode(value, type=Source)
        except msgspec.MsgspecError:
            return  # of a later version, or of somebody else

    def is_paused(self, source: Source) -> bool:
        """Whether this source hands out nothing."""
        return (source.topic, source.group) in self.paused

    def was_heard(self, topic: str) -> bool:
        """Whether this topic has a group, or ever had one."""
        return topic in self._heard or bool(self.of(topic))

    def was_made(self, topic: str) -> bool:
        """Whether this topic is of our making, and not somebody else's."""
        return topic in self._made

    def of(self, topic: str) -> list[Source]:
        """All groups of a topic."""
        return [source for source in self.sources.values() if source.topic == topic]

    def there(self, source: Source) -> Source | None:
        """The source of these names, as it was ensured."""
        return self.sources.get((source.topic, source.group))


class Control:
    """The control topic, as far as this process has read it."""

    def __init__(self, link: Link) -> None:
        self.roll: Roll = Roll()
        self._link = link
        self._position = 0
        self._is_made = False
        self._reading = asyncio.Lock()
        self._next_at = 0.0

    async def prepare(self) -> None:
        """Make the control topic, where it is missing."""
        if not self._is_made:
            if not await self._link.partitions([CONTROL], anew=True):
                await self._link.create(
                    [
                        NewTopic(
                            CONTROL,
                            1,
                            self._link.options.replication,
                            config={"cleanup.policy": "compact"},
                        )
                    ]
                )
            self._is_made = True
        await self.refresh()

    async def refresh(self) -> None:
        """Read up to the end."""
        async with self._reading:
            self._next_at = self._link.clock.now() + LOOK
            if not self._is_made and not await self._link.partitions([CONTROL]):
                return
            end = (await self._link.ends([_PLACE]))[_PLACE]
            while self._position < end:
                records = await self._link.read({_PLACE: self._position}, {_PLACE: end})
                found = records.get(_PLACE, [])
                self.roll.apply(found)
                is_whole = not found or found[-1].offset + 1 >= end or len(found) < 1
                self._position = end if is_whole else found[-1].offset + 1

    async def look(self) -> None:
        """Read up to the end, unless that was done a moment ago."""
        if self._link.clock.now() >= self._next_at:
            await self.refresh()

    async def note_made(self, topic: str) -> None:
        """Note that a topic is of our making."""
        await self._write(f"made/{topic}", b"1")

    async def enrol(self, source: Source) -> None:
        """Note that there is such a group."""
        await self._write(f"group/{source.topic}/{source.group}", msgspec.json.encode(source))

    async def strike(self, source: Source) -> None:
        """Note that there is no such group any more."""
        await self._write(f"heard/{source.topic}", b"1")
        await self._write(f"group/{source.topic}/{source.group}", None)
        await self._write(f"pause/{source.topic}/{source.group}", None)

    async def pause(self, source: Source, *, is_paused: bool) -> None:
        """Let a group hand out nothing, or go on."""
        value = b"1" if is_paused else None
        await self._write(f"pause/{source.topic}/{source.group}", value)

    async def _write(self, key: str, value: bytes | None) -> None:
        errors = await self._link.sender.send([Parcel(CONTROL, key.encode(), value, [], 0)])
        if errors:
            what = f"write {key!r} to topic {CONTROL!r}"
            raise self._link.faults.of(what, KafkaException(errors[0]))
        await self.refresh()
