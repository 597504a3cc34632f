"""The asynchronous skin of the memory broker: it waits; `Queue` decides."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from callcast.brokers.memory.log import Log, Window
from callcast.brokers.memory.queue import Lease, Queue
from callcast.core.errors import Misuse, NotSent, Unanswered, Unpublished
from callcast.core.message import Message
from callcast.core.outcome import Outcome
from callcast.policies.shelves import Entry
from callcast.ports.broker import (
    Delivery,
    Difference,
    Glimpse,
    Lag,
    Part,
    Source,
    Start,
    Traits,
    Unsettled,
)
from callcast.ports.clock import Clock

TRAITS = Traits(
    name="memory",
    durable=False,
    shared=False,
    durable_settle=False,
    knows_hearers=True,
    release_costs="nothing",
)


class MemoryBroker:
    """Everything in this process: nothing survives its end. One event loop at a time.

    What waits is bounded by the memory of the process alone.
    Offers the abilities `Browses`, `Inspects`, `Parks`, `Pauses`, `Retires`, `Rewinds` and
    `Schedules`. `clock` times leases and delays on its `now()`: a step of the wall clock moves none
    of them. `retain`: seconds for which published messages are kept for `read`.
    """

    def __init__(self, clock: Clock, *, retain: float = 0.0) -> None:
        self._clock = clock
        self._traits = replace(TRAITS, log_kept=retain)
        self._logs: dict[str, Log] = {}  # by topic; empty where nothing is retained
        self._numbers = itertools.count()
        self._topics: dict[str, dict[str, Group]] = {}  # by name; changed by `ensure` only
        self._consumers: set[MemoryConsumer] = set()
        self._is_closed = False

    @property
    def traits(self) -> Traits:
        """What is so about this broker."""
        return self._traits

    @property
    def delay_max(self) -> float:
        """Any delay will do."""
        return math.inf

    async def ensure(self, topics: Sequence[str], sources: Sequence[Source]) -> None:
        """Make topics and groups exist; raises `Misuse` naming every group that is otherwise."""
        self._check_open()
        other = [text for source in sources for text in self._otherwise(source)]
        if other:
            raise Misuse("; ".join(other))
        for topic in topics:
            self._topics.setdefault(topic, {})
        for source in sources:
            groups = self._topics.setdefault(source.topic, {})
            if source.group not in groups:
                groups[source.group] = self._new_group(source, groups.values())

    async def publish(self, messages: Sequence[Message]) -> None:
        """Give each message to all groups of its topic (or to its `group`)."""
        self._check_open()
        errors: list[NotSent | Unanswered | None] = []
        stopped: set[tuple[str, str | None]] = set()  # keys whose first failure ends them
        reached: set[Bell] = set()
        now = self._clock.now()
        for message in messages:
            lane = (message.topic, message.key)
            error = self._refusal(message, is_behind=message.key is not None and lane in stopped)
            errors.append(error)
            if error is None:
                reached.update(self._deliver(message, now))
            else:
                stopped.add(lane)
        for bell in reached:
            bell.ring()
        if any(errors):
            raise Unpublished(errors)

    async def consume(
        self, source: Source, *, part: Part = Part.READY, lease: float = 60.0, prefetch: int = 250
    ) -> MemoryConsumer:
        """Open a consumer; nothing is fetched ahead, so `prefetch` changes nothing here."""
        del prefetch
        self._check_open()
        if part is Part.DELAYED:
            raise Misuse(f"{source}: what is delayed can be browsed, not consumed")
        consumer = MemoryConsumer(self._clock, self._group(source), part=part, lease=lease)
        self._consumers.add(consumer)
        consumer.on_close = self._consumers.discard
        return consumer

    async def lag(self, source: Source) -> Lag:
        """How far this group is behind."""
        self._check_open()
        return self._group(source).queue.lag(self._clock.now())

    async def close(self) -> None:
        """Close all consumers; what was stored is gone with this object."""
        self._is_closed = True
        for consumer in list(self._consumers):
            await consumer.close()

    # Browses, Inspects, Parks, Pauses, Retires, Rewinds

    async def sources(self) -> Sequence[Source]:
        """All groups that there are."""
        self._check_open()
        return [group.queue.source for groups in self._topics.values() for group in groups.values()]

    async def browse(
        self, source: Source, *, part: Part = Part.READY, after: str = "", limit: int = 100
    ) -> Sequence[Glimpse]:
        """The next `limit` messages of a part, oldest first."""
        self._check_open()
        entries = self._group(source).queue.waiting(part, self._clock.now())
        behind = int(after) if after else -1
        found = itertools.islice((entry for entry in entries if entry.seq > behind), limit)
        return [self._glimpse(entry, part) for entry in found]

    async def differences(
        self, topics: Sequence[str], sources: Sequence[Source]
    ) -> Sequence[Difference]:
        """What is missing or otherwise."""
        self._check_open()
        wanted = dict.fromkeys([*topics, *(source.topic for source in sources)])
        found = [
            Difference(topic, f"topic {topic!r} is missing", is_missing=True)
            for topic in wanted
            if topic not in self._topics
        ]
        for source in sources:
            if source.group not in self._topics.get(source.topic, {}):
                found.append(Difference(str(source), f"group {source} is missing", is_missing=True))
            others = self._otherwise(source)
            found += [Difference(str(source), text, is_missing=False) for text in others]
        return found

    async def unpark(self, source: Source, key: str) -> int:
        """Let a parked key go on without its dead letter; how many were held."""
        self._check_open()
        group = self._group(source)
        held = group.queue.unpark(key, self._clock.now())
        group.bell.ring()
        return held

    async def pause(self, source: Source) -> None:
        """Hand out nothing more of this group; its dead letters stay within reach."""
        self._check_open()
        self._group(source).queue.is_paused = True

    async def resume(self, source: Source) -> None:
        """Go on."""
        self._check_open()
        group = self._group(source)
        group.queue.is_paused = False
        group.bell.ring()

    async def retire(self, source: Source) -> None:
        """Forget this group with all that waits for it; its consumers find nothing any more."""
        self._check_open()
        group = self._topics.get(source.topic, {}).pop(source.group, None)
        if group is not None:
            group.queue.is_paused = True

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
        """Kept messages of that window, oldest first; a position is a number.

        Raises `Misuse` when nothing is retained.
        """
        self._check_open()
        retain = self._traits.log_kept
        if not retain > 0:
            raise Misuse("this broker keeps no log: make it with retain=SECONDS (?retain=SECONDS)")
        log = self._logs.get(topic) or Log(retain)
        return log.read(Window(since, until, after, last), limit)

    # What they share

    def _check_open(self) -> None:
        if self._is_closed:
            raise NotSent("the memory broker is closed")

    def _group(self, source: Source) -> Group:
        group = self._topics.get(source.topic, {}).get(source.group)
        if group is None:
            raise Misuse(f"there is no group {source}: ensure it first")
        return group

    def _new_group(self, source: Source, others: Iterable[Group]) -> Group:
        group = Group(Queue(source, self._numbers), Bell())
        if source.start is Start.EARLIEST:
            # Kept is what some other group has not finished, unless it was for that group alone.
            kept = [entry for other in others for entry in other.queue.unfinished()]
            now = self._clock.now()
            known: set[tuple[str, str]] = set()
            for message in (entry.message for entry in sorted(kept, key=lambda entry: entry.seq)):
                if message.group is None and (message.source, message.id) not in known:
                    known.add((message.source, message.id))
                    group.queue.add(message, now, due=self._due(message, now))
        return group

    def _otherwise(self, source: Source) -> list[str]:
        group = self._topics.get(source.topic, {}).get(source.group)
        if group is None:
            return []
        there = group.queue.source
        return [
            f"group {source} exists with {name}={is_so!r}, wanted is {name}={wanted!r}: drain and"
            " retire it, or mend the contract"
            for name, is_so, wanted in (
                ("ordered", there.ordered, source.ordered),
                ("lanes", there.lanes, source.lanes),
            )
            if is_so != wanted
        ]

    def _refusal(self, message: Message, *, is_behind: bool) -> NotSent | None:
        groups = self._topics.get(message.topic)
        if is_behind:
            detail = f"an earlier message of key {message.key!r} in this batch was not sent"
        elif len(message.body) > TRAITS.body_max_bytes:
            detail = (
                f"its body has {len(message.body)} bytes, the limit is {TRAITS.body_max_bytes}:"
                " store it elsewhere and send where it is"
            )
        elif message.group is not None and message.group not in (groups or {}):
            detail = f"there is no group {message.topic}/{message.group}"
        elif not groups and not message.unheard:
            detail = (
                f"no group has ever subscribed to {message.topic!r}: check the name, start a"
                " service that listens, or say unheard=True on the event"
            )
        else:
            return None
        return NotSent(f"message {message.id!r} was not sent: {detail}", id=message.id)

    def _deliver(self, message: Message, now: float) -> list[Bell]:
        groups = self._topics.get(message.topic, {})
        retain = self._traits.log_kept
        if retain > 0 and message.group is None:
            self._logs.setdefault(message.topic, Log(retain)).add(message, self._clock.wall())
        wanted = list(groups.values()) if message.group is None else [groups[message.group]]
        for group in wanted:
            group.queue.add(message, now, due=self._due(message, now))
        return [group.bell for group in wanted]

    def _due(self, message: Message, now: float) -> float:
        return 0.0 if message.deliver_at is None else now + message.deliver_at - self._clock.wall()

    def _glimpse(self, entry: Entry, part: Part) -> Glimpse:
        due = self._clock.wall() + entry.due - self._clock.now() if part is Part.DELAYED else None
        return Glimpse(entry.message, entry.round, entry.crashes, due, str(entry.seq))


class MemoryConsumer:
    """One worker's hold on a group."""

    def __init__(self, clock: Clock, group: Group, *, part: Part, lease: float) -> None:
        self._clock = clock
        self._queue = group.queue
        if part is Part.DEAD and group.queue.dead is not None:
            self._queue = group.queue.dead
        self._bell = group.bell
        self._lease = lease
        self._hand = self._queue.join()
        self._is_closed = False
        self.on_close: Callable[[MemoryConsumer], None] = _nobody_minds

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Hand over up to `limit` deliveries; waits for the first only.

        No `await` stands between taking and returning: a cancelled fetch has taken nothing.
        """
        end = self._clock.now() + wait
        while True:
            now = self._clock.now()
            taken = self._queue.take(self._hand, limit, lease=self._lease, now=now)
            if taken or self._is_closed or now >= end:
                return taken
            await self._bell.wait(self._clock, min(end, max(now, self._queue.next_due)))

    async def settle(self, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Carry out all verdicts; raises `Unsettled` for leases that were lost."""
        lost = self._queue.settle(self._hand, verdicts, self._clock.now())
        self._bell.ring()
        if lost:
            raise Unsettled(lost=lost)

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Extend these leases by a full one from now; a lost one stays lost."""
        until = self._clock.now() + self._lease
        for delivery in deliveries:
            if isinstance(delivery.handle, Lease):
                delivery.handle.until = until

    async def close(self) -> None:
        """Release what is still held, uncounted, and end."""
        self._is_closed = True
        self._queue.leave(self._hand, self._clock.now())
        self._bell.ring()
        self.on_close(self)


class Bell:
    """Wakes all who wait for a group: whether there is something for them, the queue knows."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}

    def ring(self) -> None:
        """Wake everybody."""
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)

    async def wait(self, clock: Clock, until: float) -> None:
        """Return when it rings, or at `until` on the clock."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[woken] = None
        try:
            with clock.expire_at(until, coarse=False):
                await woken
        except TimeoutError:
            return
        finally:
            del self._waiting[woken]


class Group(NamedTuple):
    """The queue of one group, and what wakes those who wait for it or for its dead letters."""

    queue: Queue
    bell: Bell


def _nobody_minds(consumer: MemoryConsumer) -> None:
    """Until a broker says who does."""
    del consumer
