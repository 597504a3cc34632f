"""Wrong brokers that hand out, keep order and close in their own way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace
from wrong_brokers import fault

from callcast.brokers.memory.broker import MemoryBroker, MemoryConsumer
from callcast.brokers.memory.queue import Hand, Queue
from callcast.core.outcome import DONE
from callcast.policies import shelves
from callcast.policies.shelves import Entry, Lane, Lanes, Owner, Pile
from callcast.ports.broker import Delivery, Glimpse, Lag, Part, Source

browse = MemoryBroker.browse
fetch = MemoryConsumer.fetch
close = MemoryConsumer.close
lag = Queue.lag
take = Queue.take
add = Lanes.add
put_back = Lanes.put_back
place = Lanes._place
pile_next = Pile.next
lanes_next = Lanes.next
join_lane = Lanes._join


# Fetching


@fault(MemoryConsumer, "a_cancelled_fetch_loses_and_counts_nothing")
class ACancelledFetchLoses:
    async def fetch(self: MemoryConsumer, limit: int, wait: float) -> Sequence[Delivery]:
        try:
            return await fetch(self, limit, wait)
        except asyncio.CancelledError:
            self._queue.take(self._hand, limit, lease=self._lease, now=self._clock.now())
            raise


@fault(MemoryConsumer, "a_fetch_hands_over_at_most_its_limit")
class AFetchHandsOverMore:
    async def fetch(self: MemoryConsumer, limit: int, wait: float) -> Sequence[Delivery]:
        return await fetch(self, limit + 1 if limit == 3 else limit, wait)


@fault(MemoryConsumer, "a_fetch_that_found_nothing_returns_after_its_wait")
class AFetchWaitsForEver:
    async def fetch(self: MemoryConsumer, limit: int, wait: float) -> Sequence[Delivery]:
        return await fetch(self, limit, wait if wait <= 1 else 1_000_000_000.0)


@fault(Pile, "suspects_come_last")
class SuspectsComeFirst:
    def next(self: Pile, owner: Owner, now: float) -> Entry | None:
        return self._suspects.popleft() if self._suspects else pile_next(self, owner, now)


@fault(Queue, "a_message_put_off_frees_its_place_for_others")
class WhatIsPutOffKeepsItsPlace:
    """A consumer with one place waits while its message is delayed."""

    def take(self: Queue, hand: Hand, limit: int, *, lease: float, now: float) -> list[Delivery]:
        room = 1 if self._shelf.delayed(now) and limit == 1 and not self._lanes else 0
        return (
            [] if room and len(self._hands) == 1 else take(self, hand, limit, lease=lease, now=now)
        )


# Order


@fault(
    Lanes,
    "while_a_message_is_put_off_its_key_waits",
    "the_order_of_each_key_survives_failures",
    "the_lag_counts_what_waits_behind_a_delayed_message_as_delayed",
)
class AKeyDoesNotWaitForWhatIsPutOff:
    def put_back(self: Lanes, entry: Entry, now: float) -> None:
        if entry.due > now:
            shelves.heapq.heappush(self._scheduled, (entry.due, entry.seq, entry))
        else:
            put_back(self, entry, now)


@fault(
    Lanes,
    "the_order_of_each_key_survives_failures",
    "what_was_given_back_comes_again_before_what_is_behind_it",
    "what_a_dead_worker_held_keeps_its_order",
    "while_a_message_is_put_off_its_key_waits",
    "the_lag_counts_what_waits_behind_a_delayed_message_as_delayed",
)
class WhatComesBackGoesLast:
    def put_back(self: Lanes, entry: Entry, now: float) -> None:
        entry.place = next(self._numbers)
        put_back(self, entry, now)


@fault(shelves, "a_slow_key_does_not_stop_the_others")
class ASlowKeyTakesAllPlaces:
    KEY_OUT_MAX = 1_000_000


@fault(Lanes, "a_scheduled_message_does_not_hold_its_key")
class AScheduledMessageHoldsItsKey:
    def add(self: Lanes, entry: Entry, now: float) -> None:
        if entry.due > now:
            join_lane(self, entry, now)
        else:
            add(self, entry, now)


@fault(
    Lanes,
    "a_key_is_with_one_worker_at_a_time",
    "what_was_given_back_comes_again_before_what_is_behind_it",
)
class AKeyIsWithAnyWorker:
    def _place(self: Lanes, lane: Lane, now: float) -> None:
        owner, lane.owner = lane.owner, None
        newest, lane.newest = lane.newest, -1
        place(self, lane, now)
        lane.owner, lane.newest = owner, newest


@fault(Lanes, "while_a_key_waits_the_others_go_on")
class AKeyThatWaitsStopsTheOthers:
    def next(self: Lanes, owner: Owner, now: float) -> Entry | None:
        return None if self._later else lanes_next(self, owner, now)


# What an operator sees


@fault(MemoryBroker, "browsing_consumes_and_counts_nothing")
class BrowsingConsumes:
    async def browse(
        self: MemoryBroker,
        source: Source,
        *,
        part: Part = Part.READY,
        after: str = "",
        limit: int = 100,
    ) -> Sequence[Glimpse]:
        seen = await browse(self, source, part=part, after=after, limit=limit)
        consumer = await self.consume(source)
        if part is Part.READY:
            taken = await consumer.fetch(limit, 0.0)
            await consumer.settle([(one, DONE) for one in taken])
        await consumer.close()
        return seen


@fault(
    Queue,
    "the_lag_counts_each_part",
    "the_lag_counts_what_waits_behind_a_delayed_message_as_delayed",
)
class TheLagIgnoresTheDelayed:
    def lag(self: Queue, now: float) -> Lag:
        return replace(lag(self, now), delayed=0)


@fault(Queue, "the_lag_says_how_old_the_oldest_is")
class TheLagHasNoAge:
    def lag(self: Queue, now: float) -> Lag:
        return replace(lag(self, now), oldest=0.0)


@fault(
    Queue,
    "the_lag_of_a_group_that_is_done_is_nothing",
    "a_retired_group_is_gone_with_all_that_waits_for_it",
)
class NothingIsAsOldAsTheQueue:
    def lag(self: Queue, now: float) -> Lag:
        seen = lag(self, now)
        return seen if self._open or seen.dead else replace(seen, oldest=1.0)


# Closing


@fault(
    MemoryConsumer,
    "a_consumer_that_closes_gives_back_what_it_holds_uncounted",
    "nothing_is_lost_when_many_close_at_once",
)
class ClosingLosesWhatIsHeld:
    async def close(self: MemoryConsumer) -> None:
        for lease in list(self._hand.leases.values()):
            del self._hand.leases[lease.token]
            self._queue._carry_out(lease.entry, DONE, self._clock.now())
        await close(self)


@fault(MemoryConsumer, "a_consumer_that_closes_gives_back_what_it_holds_uncounted")
class ClosingCountsACrash:
    async def close(self: MemoryConsumer) -> None:
        for lease in self._hand.leases.values():
            lease.entry.crashes += 1
        await close(self)


@fault(
    MemoryConsumer,
    "closing_a_consumer_wakes_its_waiting_fetch",
    "closing_a_broker_wakes_waiting_fetches",
    "closing_leaves_no_task_no_thread_and_no_file_descriptor",
)
class ClosingWaitsForTheFetch:
    async def fetch(self: MemoryConsumer, limit: int, wait: float) -> Sequence[Delivery]:
        self.__dict__["idle"] = asyncio.Event()
        try:
            return await fetch(self, limit, wait)
        finally:
            self.__dict__["idle"].set()

    async def close(self: MemoryConsumer) -> None:
        if "idle" in self.__dict__:
            await self.__dict__["idle"].wait()
        await close(self)


@fault(
    MemoryBroker,
    "closing_leaves_no_task_no_thread_and_no_file_descriptor",
    "a_hundred_connections_leave_nothing_behind",
)
class ClosingLeavesATask:
    async def ensure(self: MemoryBroker, topics: Sequence[str], sources: Sequence[Source]) -> None:
        self.__dict__["poll"] = asyncio.get_running_loop().create_task(asyncio.Event().wait())
        await ensure(self, topics, sources)


ensure = MemoryBroker.ensure
