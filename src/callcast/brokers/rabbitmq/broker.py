"""The broker's face: it asks the house; what happens on the thread stands beside it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from callcast.brokers.rabbitmq import log, look, mail
from callcast.brokers.rabbitmq.address import parse
from callcast.brokers.rabbitmq.consumer import RabbitConsumer
from callcast.brokers.rabbitmq.desk import HOLD_MAX, Hand
from callcast.brokers.rabbitmq.faults import ChannelLost
from callcast.brokers.rabbitmq.house import House
from callcast.brokers.rabbitmq.intake import Intake
from callcast.brokers.rabbitmq.thread import Stopped, Work
from callcast.core.errors import Misuse, NotSent
from callcast.core.message import Message
from callcast.ports.broker import Difference, Glimpse, Lag, Part, Source, Traits
from callcast.ports.clock import Clock

R = TypeVar("R")

TRAITS = Traits(
    name="rabbitmq",
    durable_settle=False,  # AMQP confirms publishes, not acknowledgements
    keeps_unhandled=False,  # a group's queue holds its own messages; only a log is for all
    release_costs="nothing here; a note in a stream when it goes back to the broker",
    binds=True,
    hold_max=HOLD_MAX,
    collapses_letters=False,  # a queue cannot be asked whether it has a message already
    publishes_at_once=6,
)


class RabbitBroker:
    """Messages in a vhost of RabbitMQ (4.0 is what it is made for, 3.10 the oldest it runs on).

    `url`: ``amqp://user:password@host:5672/vhost``, ``amqps://`` for TLS, several with commas
    between; options in its query, see `Options`. `clock` tells the time.

    What was published survives the loss of any minority of a cluster's nodes, also of this
    process. What is done is acknowledged without an answer: a crash of the broker at that moment
    may bring it again. Nothing is opened before the first use; a lost connection is made anew for
    as long as somebody wants it. After a fork the child connects anew. Offers the abilities
    `Browses`, `Inspects`, `Pauses`, `Retires`, `Rewinds` (with ``retain``) and `Schedules`.
    """

    def __init__(self, url: str, *, clock: Clock) -> None:
        self._endpoints, self._options = parse(url)
        self._traits = replace(TRAITS, log_kept=self._options.retain)
        self._clock = clock
        self._house: House | None = None
        self._pid = os.getpid()
        self._intakes: dict[tuple[str, Part], Intake] = {}
        self._opening = asyncio.Lock()
        self._consumers: set[RabbitConsumer] = set()
        self._is_closed = False

    @property
    def traits(self) -> Traits:
        """What is so about this broker."""
        return self._traits

    @property
    def delay_max(self) -> float:
        """A delay takes as many steps as it needs."""
        return float("inf")

    async def ensure(self, topics: Sequence[str], sources: Sequence[Source]) -> None:
        """Make topics and groups exist; raises `Misuse` naming every difference.

        Raises `Unavailable` or `NotPermitted` when the broker cannot be reached or says no.
        """
        house = self._open_house()
        new = await self._run(lambda: house.topology.ensure(topics, sources))
        await self._run(lambda: log.catch_up(house, new, self._options.retain))

    async def publish(self, messages: Sequence[Message]) -> None:
        """Make all messages durable: each was confirmed by the broker. Raises `Unpublished`."""
        house = self._open_house()
        if messages:
            answers = await self._run(lambda: mail.post(house, messages, self._traits))
            mail.check(house, messages, answers)

    async def consume(
        self, source: Source, *, part: Part = Part.READY, lease: float = 60.0, prefetch: int = 250
    ) -> RabbitConsumer:
        """Open a consumer; all of one source here share what is fetched ahead, `prefetch` in all.

        Of an ordered source half of that is fetched ahead of each lane.
        """
        house = self._open_house()
        if part is Part.DELAYED:
            raise Misuse(f"{source}: what is delayed can be browsed, not consumed")
        hand = Hand(lease)
        async with self._opening:
            intake = self._intakes.get((str(source), part))
            if intake is None:
                there = await self._run(lambda: house.topology.find(source))
                if source.bound is not None:
                    there = replace(there, bound=source.bound)  # what may change, as it is now
                intake = Intake(house, there, part, prefetch=prefetch)
                await self._run(intake.start)
                self._intakes[str(source), part] = intake
        consumer = RabbitConsumer(house, intake, hand, on_close=self._left)
        with intake.lock:
            intake.desk.join(hand)
            intake.bells.append(consumer.wake)
        self._consumers.add(consumer)
        return consumer

    async def lag(self, source: Source) -> Lag:
        """How far this group is behind. `leased` is what this process holds: AMQP does not tell."""
        house = self._open_house()
        return await self._run(lambda: look.lag(house, source, self._here(source)))

    async def close(self) -> None:
        """Close all consumers, then the connections. Idempotent; what was held is free again."""
        self._is_closed = True
        house, self._house = self._house, None
        if house is None or self._pid != os.getpid():
            return
        consumers = list(self._consumers)
        await asyncio.gather(*(one.close() for one in consumers), return_exceptions=True)
        try:
            await house.thread.run(house.close)
        finally:
            await house.thread.stop()

    # Browses, Inspects, Pauses, Retires, Rewinds

    async def sources(self) -> Sequence[Source]:
        """All groups that there are."""
        house = self._open_house()
        return await self._run(house.topology.sources)

    async def browse(
        self, source: Source, *, part: Part = Part.READY, after: str = "", limit: int = 100
    ) -> Sequence[Glimpse]:
        """The next `limit` messages of a part, oldest first."""
        house = self._open_house()
        page = look.Page(source, part, after, limit)
        return await self._run(lambda: look.browse(house, page, self._here(source)))

    async def differences(
        self, topics: Sequence[str], sources: Sequence[Source]
    ) -> Sequence[Difference]:
        """What is missing or otherwise."""
        house = self._open_house()
        return await self._run(lambda: house.topology.differences(topics, sources))

    async def pause(self, source: Source) -> None:
        """Hand out nothing more of this group; its dead letters stay within reach."""
        await self._set_paused(source, is_paused=True)

    async def resume(self, source: Source) -> None:
        """Go on."""
        await self._set_paused(source, is_paused=False)

    async def retire(self, source: Source) -> None:
        """Forget this group with all that waits for it, dead letters too. Idempotent."""
        house = self._open_house()
        await self._run(lambda: house.topology.retire(source))

    async def read(
        self,
        topic: str,
        *,
        since: float = 0.0,
        until: float | None = None,
        after: str = "",
        last: str = "",
        limit: int = 500,
    ) -> Sequence[Glimpse]:
        """Kept messages of that window, oldest first; a position is an offset.

        Raises `Misuse` when nothing is retained.
        """
        house = self._open_house()
        if not self._options.retain > 0:
            raise Misuse("this broker keeps no log: open it with ?retain=SECONDS at its URL's end")
        wanted = log.window(topic, (since, until), (after, last))
        return await self._run(lambda: log.pages(house, wanted, limit))

    # What they share

    async def _set_paused(self, source: Source, *, is_paused: bool) -> None:
        house = self._open_house()
        await self._run(lambda: look.set_paused(house, source, is_paused=is_paused))
        intake = self._intakes.get((str(source), Part.READY))
        if intake is not None:
            await self._run(lambda: intake.set_paused(is_paused=is_paused))

    def _here(self, source: Source) -> dict[Part, Intake]:
        return {part: one for (name, part), one in self._intakes.items() if name == str(source)}

    async def _left(self, consumer: RabbitConsumer) -> None:
        """A consumer has closed; with the last one its intake ends."""
        self._consumers.discard(consumer)
        intake = consumer.intake
        with intake.lock:
            is_last = intake.desk.leave(consumer.hand, self._clock.now())
            intake.bells.remove(consumer.wake)
        if not is_last:
            intake.wake()
            return
        for key, one in list(self._intakes.items()):
            if one is intake:
                del self._intakes[key]
        try:
            await consumer.house.thread.run(intake.end)
        except (Stopped, ChannelLost):
            return  # the end of the connection gives it all back

    def _open_house(self) -> House:
        if self._is_closed:
            raise NotSent("the broker is closed")
        if self._pid != os.getpid():
            self._house = None  # the parent's: its thread does not exist here
            self._consumers.clear()
            self._intakes.clear()
        if self._house is None:
            self._pid = os.getpid()
            self._house = House(self._endpoints, self._options, self._clock)
        return self._house

    async def _run(self, make: Callable[[], Work[R]]) -> R:
        house = self._open_house()
        try:
            return await house.thread.run(make)
        except Stopped:
            raise NotSent("the broker is closed") from None
        except ChannelLost as error:
            raise house.topology.refused(error, "go on") from error
