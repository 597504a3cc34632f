"""What one broker object has running: a thread, two connections, what is known of the vhost."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

from callcast.brokers.rabbitmq.address import Endpoint, Options
from callcast.brokers.rabbitmq.catalog import Catalog
from callcast.brokers.rabbitmq.faults import ChannelLost
from callcast.brokers.rabbitmq.link import Link
from callcast.brokers.rabbitmq.names import (
    CATALOG,
    CATALOG_ARGUMENTS,
    PARDONS,
    PARDONS_ARGUMENTS,
    Names,
)
from callcast.brokers.rabbitmq.pardons import Pardons
from callcast.brokers.rabbitmq.sender import Sender
from callcast.brokers.rabbitmq.tape import Roll, Tape
from callcast.brokers.rabbitmq.thread import LoopThread
from callcast.brokers.rabbitmq.topology import Topology
from callcast.core.errors import CallcastError, Misuse, Unavailable
from callcast.ports.clock import Clock


class House:
    """Made by the first use of a broker, torn down by its close."""

    def __init__(self, endpoints: Sequence[Endpoint], options: Options, clock: Clock) -> None:
        self.clock: Clock = clock
        self.thread: LoopThread = LoopThread("callcast-rabbitmq")
        self.loop: asyncio.AbstractEventLoop = self.thread.loop
        loop = self.loop
        self.worker: str = secrets.token_hex(8)
        """Who this is among the workers of a group."""
        self.feed: Link = Link(endpoints, options, name="callcast consume", loop=loop)
        self._post = Link(endpoints, options, name="callcast publish", loop=loop)
        self.sender: Sender = Sender(self._post, loop, prepare=self._make_again)
        self.catalog: Catalog = Catalog()
        self.pardons: Pardons = Pardons()
        roll = Roll(self.feed, self.sender, loop)
        self.topology: Topology = Topology(
            self.feed,
            Tape(
                CATALOG, CATALOG_ARGUMENTS, roll, fold=self.catalog.fold, whole=self.catalog.whole
            ),
            self.catalog,
            retain=options.retain,
        )
        self._tape = Tape(PARDONS, PARDONS_ARGUMENTS, roll, fold=self.pardons.fold)
        self._restoring = asyncio.Lock()
        self._restored: object = None

    async def forgive(self, records: Sequence[dict[str, Any]]) -> None:
        """Write down returns that are about to happen and are no crash; durable on return."""
        if records:
            await self._tape.add(records)
            for record in records:
                self.pardons.fold(record, -1)  # known here before it is read

    async def forgive_if_possible(self, records: Sequence[dict[str, Any]]) -> None:
        """The same for returns that have happened: without it these run alone the next time."""
        try:
            await self.forgive(records)
        except (CallcastError, ChannelLost):
            return

    async def hear_pardons(self) -> None:
        """Read what others wrote down; without it every return counts as a crash."""
        try:
            await self._tape.catch_up()
        except (Unavailable, ChannelLost):
            return  # evidence without pardons: a message runs alone that need not

    async def is_paused(self, names: Names) -> bool:
        """Whether this group is paused; raises `Misuse` when there is none."""
        counts = await self.topology.counts([names.paused])
        if names.paused not in counts:
            raise Misuse(f"there is no group {names.source}: ensure it first")
        return counts[names.paused].ready > 0

    async def restore(self) -> None:
        """After a loss: connect, and make again what may be gone; once per connection."""
        async with self._restoring:
            await self.feed.open()
            if self._restored is not self.feed.token:
                await self.topology.restore()
                self._restored = self.feed.token

    async def _make_again(self) -> None:
        """What may be gone, whatever was restored: a lost connection is noticed late."""
        async with self._restoring:
            await self.topology.restore()

    async def nap(self, seconds: float) -> None:
        """Wait a little."""
        woken: asyncio.Future[None] = self.loop.create_future()
        timer = self.loop.call_later(seconds, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Close both connections. On the thread's loop."""
        await self._post.close()
        await self.feed.close()


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
