"""What comes in for one group: subscribes, fills the desk, acknowledges, comes back after a loss.

Everything here runs on the thread's loop; the desk is shared with the workers' loops, under a lock
that is held for a few steps of plain code.

| state     | what                                                                            |
|-----------|---------------------------------------------------------------------------------|
| off       | no channel: before the start, after the end, between two attempts               |
| on        | subscribed: messages come                                                       |
| suspended | a channel without a subscription: nobody fetches, or the group is paused; what  |
|           | waited here is back at the broker, where others can have it                     |
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from callcast.brokers.rabbitmq import copies, spread
from callcast.brokers.rabbitmq.confirms import Fate
from callcast.brokers.rabbitmq.desk import Desk, Hand, Held, Move, Stub
from callcast.brokers.rabbitmq.faults import NOT_FOUND, ChannelLost
from callcast.brokers.rabbitmq.house import House
from callcast.brokers.rabbitmq.inlet import Inlet
from callcast.brokers.rabbitmq.names import Names
from callcast.brokers.rabbitmq.pardons import Return, back, records
from callcast.brokers.rabbitmq.port import Port, close_quietly
from callcast.brokers.rabbitmq.receipts import Receipts
from callcast.brokers.rabbitmq.sorter import Sorter
from callcast.core.errors import CallcastError, Misuse
from callcast.ports.broker import Delivery, Part, Source

IDLE = 5.0
"""Seconds without a fetch after which what waits here goes back to others."""
PAUSE_LOOK = 2.0
"""Seconds between two looks whether the group is paused: it binds within 5."""
TICK_MAX = 0.5
"""Seconds between two looks at leases and idleness, at most; a tenth of the shortest lease."""
RETRY_FIRST, RETRY_MAX = 0.1, 5.0
"""Seconds between attempts to come back; doubled each time."""


class Intake:
    """One group's, in one process; shared by all its consumers there."""

    def __init__(self, house: House, source: Source, part: Part, *, prefetch: int) -> None:
        self.names: Names = Names(source)
        self.part: Part = part
        is_ordered = source.ordered and part is Part.READY
        self.desk: Desk = Desk(ordered=is_ordered)
        self.lock: threading.Lock = threading.Lock()
        self.trouble: CallcastError | None = None
        """Why nothing comes."""
        self.bells: list[Callable[[], None]] = []
        """How to wake those who fetch; changed under the lock."""
        self.last_fetch: float = house.clock.now()
        """When somebody last asked; written by the workers."""
        self.fetching: int = 0
        """How many ask right now; written by the workers."""
        self._house = house
        self._source = source
        self._is_ordered = is_ordered
        self._prefetch = prefetch
        self._port: Port | None = None
        self._receipts = Receipts(is_bound=source.bound is not None)
        self._tags: dict[str, str] = {}  # of our subscriptions, by queue
        self._inlet = Inlet(source, self._came, is_of_letters=part is Part.DEAD)
        self._sorter = Sorter(house, self, self.names, is_ordered=is_ordered, prefetch=prefetch)
        self._is_ended = False
        self._is_suspended = False
        self._is_leaving = False  # what comes goes back
        self._changing = asyncio.Lock()  # one change of state at a time
        self._ticking: asyncio.TimerHandle | None = None
        self._paused_looked = 0.0

    @property
    def queues(self) -> Sequence[str]:
        """Where messages come from."""
        if self.part is Part.DEAD:
            return (self.names.dead,)
        return (*self.names.work, self.names.suspects)

    @property
    def is_ordered(self) -> bool:
        """Whether its messages have lanes."""
        return self._is_ordered

    @property
    def is_suspended(self) -> bool:
        """Whether a fetch must ask for messages to come again."""
        return self._is_suspended

    @property
    def coming(self) -> int:
        """How many have arrived and have no place yet."""
        return len(self._inlet) + self._sorter.waiting

    def wake(self) -> None:
        """Wake those who fetch; from any thread."""
        if self.fetching:
            for ring in list(self.bells):
                ring()

    # State

    async def start(self) -> None:
        """Subscribe; raises what the broker says."""
        async with self._changing:
            await self._look_for_pause()
            if not self.desk.is_paused:
                await self._subscribe()
        self._tick()

    async def end(self) -> None:
        """Give back all that is here, uncounted, and close the channel. Idempotent."""
        self._is_ended = True
        if self._ticking is not None:
            self._ticking.cancel()
        async with self._changing:
            await self._unsubscribe()
            port, self._port = self._port, None
            if port is not None:
                await port.close()

    async def set_paused(self, *, is_paused: bool) -> None:
        """Carry out what was stored at the broker, here and now."""
        with self.lock:
            self.desk.is_paused = is_paused
        async with self._changing:
            await self._adjust()
        self.wake()

    def resume(self) -> None:
        """Somebody fetches again: subscribe, unless subscribed."""
        if self._is_suspended and not self._is_ended:
            self._is_suspended = False
            self._house.thread.begin(self._readjust())

    async def _readjust(self) -> None:
        async with self._changing:
            try:
                await self._adjust()
            except (CallcastError, ChannelLost):
                return  # the loss of the channel has started what brings it back

    async def _adjust(self) -> None:
        if self._is_ended:
            return
        if self.desk.is_paused or self._is_suspended:
            await self._unsubscribe()
        elif not self._tags and self.trouble is None:
            await self._subscribe()

    async def _subscribe(self) -> None:
        try:
            await self._subscribe_all()
        except ChannelLost as error:
            if error.code == NOT_FOUND:
                raise Misuse(f"there is no group {self._source}: ensure it first") from error
            what = f"consume {self._source}"
            raise self._house.topology.refused(error, what) from error

    async def _subscribe_all(self) -> None:
        port = self._port
        if port is None or port.lost is not None:
            port = self._port = await self._house.feed.channel()
            self._receipts.begin(port)
            port.on_lost(self._lost)
            port.on_cancel(self._cancelled)
        for queue in self.queues:  # one by one: a prefetch is of the channel's next consumer
            await self._consume(port, queue)
        self.trouble = None

    async def _consume(self, port: Port, queue: str) -> None:
        self._tags[queue] = ""
        arguments: dict[str, int] = {}
        prefetch = self._prefetch
        if queue == self.names.suspects:
            prefetch = 1
        elif self._is_ordered:
            prefetch = max(1, prefetch // 2)
            arguments["x-priority"] = spread.priority(self._house.worker, queue)

        self._tags[queue] = await self._inlet.open(
            port, queue, prefetch=prefetch, arguments=arguments
        )

    async def _unsubscribe(self) -> None:
        """End the subscriptions and give back what waits; what is out stays out."""
        port = self._port
        if port is None or port.lost is not None or not self._tags:
            return
        with self.lock:
            if not self.desk.can_give_back:
                return  # ordered, and something is out: see `Desk.give_back`
        if self._is_ordered:
            await self._leave(port)
            return
        try:
            for tag in list(self._tags.values()):
                await port.cancel(tag)
        except ChannelLost:
            return  # the broker has it all back by the end of the channel
        self._tags.clear()
        self._receipts.give_back(await self._pardoned())

    async def _leave(self, port: Port) -> None:
        """Give back by the end of the channel, so that the queue has all of it at once.

        Merely cancelled, the next worker would have what stands behind it first.
        """
        self._is_leaving = True
        try:
            while await self._pardoned():
                continue  # with what came meanwhile: a prefetch, at most
            self._tags.clear()
            self._port = None
            self._receipts.void()
            await close_quietly(port)
        finally:
            self._is_leaving = False

    async def _pardoned(self) -> list[Held]:
        """What waits here; it leaves the desk, and that it goes back is known to be no crash."""
        self._take_in()
        with self.lock:
            held = self.desk.give_back()
        returns = [back(one.queue, one.message, one.count) for one in held]
        returns += self._sorter.returns if self._is_leaving else ()
        await self._house.forgive_if_possible(records(returns))
        return held

    async def set_apart(self, suspect: Held) -> None:
        """Before a suspect of an ordered group runs alone: a crash is to be its own only."""
        self._take_in()
        with self.lock:
            others = [one for one in self.desk.held if one is not suspect]
        away = [back(one.queue, one.message, one.count) for one in (suspect, *others)]
        said = self._house.pardons.apart(away[0], [*away[1:], *self._sorter.returns])
        await self._house.forgive(said)

    # Losses

    def _cancelled(self) -> None:
        """The broker has ended a subscription: its queue is gone, or has moved."""
        port = self._port
        if port is not None:
            self._house.thread.begin(close_quietly(port))

    def _lost(self, error: ChannelLost) -> None:
        with self.lock:
            self.desk.void()
        self._tags.clear()
        self._inlet.clear()
        self._sorter.clear()
        self._receipts.void()
        if not self._is_ended and self._port is not None:  # else it was closed on purpose
            self.trouble = self._house.topology.refused(error, f"consume {self._source}")
            self._house.thread.begin(self._come_back())
        self.wake()

    async def _come_back(self) -> None:
        pause = RETRY_FIRST
        while not self._is_ended:
            async with self._changing:
                if self._port is not None and self._port.lost is None and self._tags:
                    return  # somebody else did it
                try:
                    await self._house.restore()
                    await self._look_for_pause()
                    if self.desk.is_paused or self._is_suspended:
                        self.trouble = None
                    else:
                        await self._subscribe()
                except (CallcastError, ChannelLost) as error:
                    if isinstance(error, CallcastError):
                        self.trouble = error
                else:
                    return
            self.wake()
            await self._house.nap(pause)
            pause = min(RETRY_MAX, pause * 2)

    # Coming in

    def _came(self) -> None:
        if not self._is_leaving:
            self._take_in()

    def _take_in(self) -> None:
        now, generation = self._house.clock.now(), self.generation
        sorter = self._sorter if self.part is Part.READY else None
        adopted: list[Return] = []
        with self.lock:
            for one in self._inlet.take():
                arrived = one.arrived
                stub = Stub(one.tag, one.queue, generation, arrived.crashes)
                if one.is_redelivered and self.desk.adopt(arrived, stub, now):
                    adopted.append(back(one.queue, arrived.message, arrived.count - 1))
                elif sorter is None or not sorter.takes(stub, arrived):
                    self.desk.arrive(arrived, stub, now)
        if adopted:
            self._house.thread.begin(self._house.forgive_if_possible(records(adopted)))
        self.wake()

    # Verdicts

    def finish(self, entries: Sequence[Held]) -> None:
        """Acknowledge what is done."""
        self._receipts.acknowledge(entries)

    async def move(self, hand: Hand, moves: Sequence[Move]) -> list[Delivery]:
        """Copy what is put off or dead, then acknowledge it; what could not be copied."""
        wall = self._house.clock.wall()
        letters = [
            copies.of_verdict(self.names, lease.entry, outcome, wall=wall)
            for _, lease, outcome in moves
        ]
        try:
            answers = await self._house.sender.send(letters)
        except CallcastError:
            with self.lock:
                for _, lease, _ in moves:
                    self.desk.stayed(hand, lease)
            raise
        failed: list[Delivery] = []
        done: list[Held] = []
        now = self._house.clock.now()
        with self.lock:
            for (delivery, lease, _), answer in zip(moves, answers, strict=True):
                if answer is Fate.CONFIRMED:
                    done.append(self.desk.moved(lease, now))
                else:
                    self.desk.stayed(hand, lease)
                    failed.append(delivery)
        self.finish(done)
        return failed

    @property
    def generation(self) -> int:
        """Of the channel that there is now."""
        return self._receipts.generation

    def dismiss(self, done: Sequence[Stub], back: Sequence[Stub]) -> None:
        """Acknowledge these, whose copies are safe, and give back those."""
        self._receipts.acknowledge(done)
        self._receipts.give_back(back)

    # Time

    def _tick(self) -> None:
        if self._is_ended:
            return
        now = self._house.clock.now()
        with self.lock:
            back = self.desk.expire(now)
            pause = min(TICK_MAX, self.desk.lease_min / 10.0)
        self._ticking = self._house.loop.call_later(pause, self._tick)
        self._receipts.give_back(back, is_failed=True)
        if back or self._is_ordered:
            self.wake()
        if now >= self._paused_looked + PAUSE_LOOK:
            self._paused_looked = now
            self._house.thread.begin(self._look_again())
        if not self.fetching and now >= self.last_fetch + IDLE and self._tags:
            self._is_suspended = True
            self._house.thread.begin(self._readjust())

    async def _look_again(self) -> None:
        if self.trouble is not None or self._changing.locked():
            return
        async with self._changing:
            try:
                was = self.desk.is_paused
                await self._look_for_pause()
                if was != self.desk.is_paused:
                    await self._adjust()
                    self.wake()
            except (CallcastError, ChannelLost):
                return  # the next look, or whoever brings the channel back, sees it

    async def _look_for_pause(self) -> None:
        if self.part is Part.READY:
            is_paused = await self._house.is_paused(self.names)
            with self.lock:
                self.desk.is_paused = is_paused
        self._paused_looked = self._house.clock.now()
