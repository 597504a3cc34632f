"""Wrong brokers that wait, wake, look and remember in their own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from wrong_brokers import StoredBroker, fault

from callcast.brokers.memory.broker import Bell, MemoryBroker, MemoryConsumer
from callcast.brokers.memory.queue import Hand, Lease, Queue
from callcast.core.errors import Misuse, NotSent
from callcast.core.message import Message
from callcast.core.outcome import DONE, Outcome
from callcast.policies.shelves import Entry
from callcast.ports.broker import Delivery, Difference, Glimpse, Part, Source, Unsettled

Verdicts = Sequence[tuple[Delivery, Outcome]]

refusal = MemoryBroker._refusal
deliver = MemoryBroker._deliver
ensure = MemoryBroker.ensure
publish = MemoryBroker.publish
browse = MemoryBroker.browse
glimpse = MemoryBroker._glimpse
due = MemoryBroker._due
consume = StoredBroker.consume
fetch = MemoryConsumer.fetch
close = MemoryConsumer.close
settle = Queue.settle
settle_all = MemoryConsumer.settle
take = Queue.take
expire = Queue._expire


# Waking


@fault(MemoryConsumer, "a_fetch_waits_for_the_first_only")
class AFetchWaitsUntilItIsFull:
    async def fetch(self: MemoryConsumer, limit: int, wait: float) -> Sequence[Delivery]:
        found = list(await fetch(self, limit, 0.0))
        if len(found) < limit:
            found += await fetch(self, limit - len(found), wait)
        return found


@fault(MemoryBroker, "a_waiting_fetch_wakes_when_a_message_comes")
class PublishingWakesNobody:
    def _deliver(self: MemoryBroker, message: Message, now: float) -> list[Bell]:
        return deliver(self, message, now)[:0]


@fault(Queue, "a_waiting_fetch_wakes_when_a_delay_ends")
class TheEndOfADelayWakesNobody:
    @property
    def next_due(self: Queue) -> float:
        return min((hand.check_at for hand in self._hands), default=float("inf"))


@fault(Queue, "a_waiting_fetch_wakes_when_a_lease_ends")
class TheEndOfALeaseWakesNobody:
    @property
    def next_due(self: Queue) -> float:
        return self._shelf.next_due


@fault(
    MemoryConsumer,
    "a_settle_wakes_a_fetch_that_waited_for_its_key",
    "a_waiting_redriver_wakes_when_a_message_dies",
)
class ASettleWakesNobody:
    async def settle(self: MemoryConsumer, verdicts: Verdicts) -> None:
        lost = self._queue.settle(self._hand, verdicts, self._clock.now())
        if lost:
            raise Unsettled(lost=lost)


@fault(MemoryConsumer, "a_key_that_becomes_free_wakes_a_waiting_fetch")
class AFreeKeyIsForOneWhoSleeps:
    """It goes to the worker that waited for it first, and nobody wakes that one."""

    async def settle(self: MemoryConsumer, verdicts: Verdicts) -> None:
        if len(self._queue._hands) == 1 or not self._bell._waiting:
            await settle_all(self, verdicts)
        elif self._queue.settle(self._hand, verdicts, self._clock.now()):
            raise AssertionError("nothing is lost where this fault shows")
        else:
            self.__dict__["stands_back"] = True

    async def fetch(self: MemoryConsumer, limit: int, wait: float) -> Sequence[Delivery]:
        if "stands_back" in self.__dict__:
            await self._bell.wait(self._clock, self._clock.now() + wait)
        return await fetch(self, limit, wait)


# Holding


@fault(MemoryConsumer, "what_one_worker_holds_no_other_gets")
class ALeaseIsShorterThanSaid:
    async def fetch(self: MemoryConsumer, limit: int, wait: float) -> Sequence[Delivery]:
        whole, self._lease = self._lease, self._lease * 0.4
        try:
            return await fetch(self, limit, wait)
        finally:
            self._lease = whole


@fault(MemoryConsumer, "renewing_a_lost_lease_does_not_take_it_from_its_new_owner")
class RenewingTakesALostLeaseBack:
    def renew(self: MemoryConsumer, deliveries: Sequence[Delivery]) -> None:
        for lease in (delivery.handle for delivery in deliveries):
            assert isinstance(lease, Lease)
            lease.until = self._clock.now() + self._lease
            for hand in self._queue._hands:
                if hand.leases.pop(lease.entry.token, None) is not None:
                    lease.entry.token = lease.token
                    self._hand.leases[lease.token] = lease


@fault(Queue, "what_a_dead_worker_held_comes_back")
class ADeadWorkerTakesTheThirdWithIt:
    def _expire(self: Queue, hand: Hand, now: float) -> None:
        ended = [lease.entry for lease in hand.leases.values() if lease.until <= now]
        expire(self, hand, now)
        for entry in ended[2:3]:
            self._shelf._returned = [one for one in self._shelf._returned if one[1] is not entry]
            del self._open[entry.seq]


@fault(Queue, "a_dead_letter_whose_redriver_died_comes_again")
class ADeadRedriverKeepsTheLetter:
    def _expire(self: Queue, hand: Hand, now: float) -> None:
        if self.dead is not None:
            expire(self, hand, now)


@fault(Queue, "a_dead_letter_comes_to_no_worker_again")
class DeadLettersComeAgainByThemselves:
    def take(self: Queue, hand: Hand, limit: int, *, lease: float, now: float) -> list[Delivery]:
        if self.dead is not None and not self.source.ordered:
            for letter in self.dead.unfinished():
                if not letter.token and now > letter.since + 2 * lease:
                    self.add(letter.message, now)
        return take(self, hand, limit, lease=lease, now=now)


@fault(MemoryBroker, "a_dead_letter_belongs_to_the_group_that_failed")
class DeadLettersBelongToTheTopic:
    async def consume(self: StoredBroker, source: Source, **options: Any) -> MemoryConsumer:
        if options.get("part") is Part.DEAD:
            first = next(iter(self._topics[source.topic].values()))
            source = first.queue.source
        return await consume_memory(self, source, **options)


consume_memory = MemoryBroker.consume


@fault(Queue, "a_cast_waits_for_a_service_that_never_ran")
class WhatNobodyFetchesIsDropped:
    def take(self: Queue, hand: Hand, limit: int, *, lease: float, now: float) -> list[Delivery]:
        is_first = not self.__dict__.setdefault("was_fetched", False)
        self.__dict__["was_fetched"] = True
        taken = take(self, hand, limit, lease=lease, now=now)
        if is_first and self.dead is not None:
            old = [one for one in taken if now > one.handle.entry.since + 2 * lease]
            settle(self, hand, [(one, DONE) for one in old], now)
            taken = [one for one in taken if one not in old]
        return taken


# Publishing and ensuring


@fault(
    MemoryBroker,
    "a_body_above_the_limit_is_refused_and_the_rest_is_sent",
    "a_batch_stops_a_key_at_its_first_failure",
)
class ALargeBodyIsCut:
    def _refusal(self: MemoryBroker, message: Message, *, is_behind: bool) -> NotSent | None:
        return refusal(self, replace(message, body=b""), is_behind=is_behind)


@fault(MemoryBroker, "an_event_that_may_stay_unheard_is_no_error")
class TheUnheardIsAlwaysAnError:
    def _refusal(self: MemoryBroker, message: Message, *, is_behind: bool) -> NotSent | None:
        return refusal(self, replace(message, unheard=False), is_behind=is_behind)


@fault(MemoryBroker, "attributes_that_were_not_set_stay_so", "what_was_handled_can_be_read_again")
class WhatWasNotSetIsEmpty:
    def _deliver(self: MemoryBroker, message: Message, now: float) -> list[Bell]:
        return deliver(self, replace(message, subject=message.subject or ""), now)


@fault(
    MemoryBroker,
    "thousands_of_messages_reach_tens_of_consumers_once_each",
    "a_thousand_keys_keep_their_order",
)
class ALargeBatchLosesItsLast:
    async def publish(self: MemoryBroker, messages: Sequence[Message]) -> None:
        await publish(self, messages[:-1] if len(messages) > 200 else messages)


@fault(
    MemoryBroker,
    "messages_of_a_key_come_in_their_order",
    "the_order_of_each_key_survives_failures",
    "a_thousand_keys_keep_their_order",
)
class ALargeBatchIsTurnedRound:
    async def publish(self: MemoryBroker, messages: Sequence[Message]) -> None:
        await publish(self, messages[::-1] if len(messages) > 10 else messages)


@fault(MemoryBroker, "topics_are_apart")
class VersionsAreOneTopic:
    def _deliver(self: MemoryBroker, message: Message, now: float) -> list[Bell]:
        bells = deliver(self, message, now)
        for topic, groups in self._topics.items():
            if topic != message.topic and message.topic.startswith(topic):
                for group in groups.values():
                    group.queue.add(message, now)
        return bells


@fault(
    MemoryBroker,
    "ensuring_again_changes_nothing",
    "ensuring_a_group_with_other_facts_names_the_difference",
    "a_cast_waits_for_a_service_that_never_ran",
    "pausing_is_the_groups_own_and_can_be_repeated",
)
class EnsuringMakesAnew:
    async def ensure(self: MemoryBroker, topics: Sequence[str], sources: Sequence[Source]) -> None:
        for source in sources:
            self._topics.get(source.topic, {}).pop(source.group, None)
        await ensure(self, topics, sources)


@fault(
    MemoryBroker,
    "ensuring_a_group_with_other_facts_names_the_difference",
    "each_difference_is_named_before_it_is_made",
)
class OtherFactsAreIgnored:
    def _otherwise(self: MemoryBroker, source: Source) -> list[str]:
        return []


@fault(
    MemoryBroker,
    "each_difference_is_named_before_it_is_made",
    "a_retired_group_is_missing_and_can_be_made_anew",
    "looking_for_differences_makes_nothing",
)
class NoDifferenceIsSeen:
    async def differences(
        self: MemoryBroker, topics: Sequence[str], sources: Sequence[Source]
    ) -> Sequence[Difference]:
        return []


@fault(MemoryBroker, "a_scheduled_message_is_never_early")
class WhatIsScheduledIsEarly:
    def _due(self: MemoryBroker, message: Message, now: float) -> float:
        return now + (due(self, message, now) - now) / 2


# Looking


@fault(MemoryBroker, "browsing_goes_on_where_it_stopped")
class BrowsingBeginsAnew:
    async def browse(
        self: MemoryBroker, source: Source, *, after: str = "", **options: Any
    ) -> Sequence[Glimpse]:
        return await browse(self, source, **options)


@fault(MemoryBroker, "a_delayed_message_shows_when_it_is_due")
class BrowsingShowsNoTimes:
    def _glimpse(self: MemoryBroker, entry: Entry, part: Part) -> Glimpse:
        return replace(glimpse(self, entry, part), due=None)


@fault(MemoryBroker, "all_sources_are_listed")
class OnlyOneSourceIsListed:
    async def sources(self: MemoryBroker) -> Sequence[Source]:
        return [next(iter(groups.values())).queue.source for groups in self._topics.values()]


@fault(
    Queue,
    "what_is_out_while_paused_can_be_settled",
    "a_pause_binds_the_workers_of_others_within_five_seconds",
)
class WhilePausedNothingIsSettled:
    def settle(self: Queue, hand: Hand, verdicts: Verdicts, now: float) -> list[Delivery]:
        return [one for one, _ in verdicts] if self.is_paused else settle(self, hand, verdicts, now)


# Closing


@fault(MemoryConsumer, "a_closed_consumer_fetches_nothing")
class AClosedConsumerGoesOn:
    async def fetch(self: MemoryConsumer, limit: int, wait: float) -> Sequence[Delivery]:
        if self._is_closed:
            self._hand = self._queue.join()
        return await fetch(self, limit, wait)


@fault(MemoryConsumer, "closing_twice_is_closing_once")
class ClosingTwiceIsAnError:
    async def close(self: MemoryConsumer) -> None:
        if self._is_closed:
            raise Misuse("it is closed already")
        await close(self)
