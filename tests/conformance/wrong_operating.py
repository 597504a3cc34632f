"""Wrong brokers that deceive their operator: they pause, retire, compare and rewind otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from wrong_brokers import StoredBroker, fault

from callcast.brokers.memory import log
from callcast.brokers.memory.broker import Bell, MemoryBroker
from callcast.brokers.memory.log import Log, Window
from callcast.brokers.memory.queue import Hand, Queue
from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.ports.broker import Delivery, Difference, Glimpse, Source

differences = MemoryBroker.differences
ensure = MemoryBroker.ensure
deliver = MemoryBroker._deliver
retire = MemoryBroker.retire
read = MemoryBroker.read
close = MemoryBroker.close
keep = Log.add
page = Log.read
join = Queue.join
take = Queue.take

deaf: list[Hand] = []
"""Hands of workers that ran before a pause."""


# Pausing


@fault(
    MemoryBroker,
    "a_pause_binds_the_workers_of_others_within_five_seconds",
    "a_pause_survives_a_restart",
    "a_paused_source_hands_out_nothing_until_it_is_resumed",
    "dead_letters_of_a_paused_group_stay_within_reach",
    "pausing_is_the_groups_own_and_can_be_repeated",
)
class APauseChangesNothing:
    async def pause(self: MemoryBroker, source: Source) -> None:
        self._group(source)


@fault(
    Queue,
    "a_pause_binds_the_workers_of_others_within_five_seconds",
    "a_paused_source_hands_out_nothing_until_it_is_resumed",
    "dead_letters_of_a_paused_group_stay_within_reach",
)
class ARunningWorkerNeverHearsOfAPause:
    def join(self: Queue) -> Hand:
        hand = join(self)
        if not self.is_paused:
            deaf.append(hand)
        return hand

    def take(self: Queue, hand: Hand, limit: int, *, lease: float, now: float) -> list[Delivery]:
        is_paused, self.is_paused = self.is_paused, self.is_paused and hand not in deaf
        try:
            return take(self, hand, limit, lease=lease, now=now)
        finally:
            self.is_paused = is_paused


@fault(MemoryBroker, "a_pause_counts_nothing_and_loses_nothing")
class APauseCountsWhatWaits:
    async def pause(self: MemoryBroker, source: Source) -> None:
        queue = self._group(source).queue
        queue.is_paused = True
        for entry in queue.unfinished():
            entry.crashes += 1


@fault(MemoryBroker, "dead_letters_of_a_paused_group_stay_within_reach")
class APauseHoldsDeadLettersToo:
    async def pause(self: MemoryBroker, source: Source) -> None:
        queue = self._group(source).queue
        assert queue.dead is not None
        queue.is_paused = queue.dead.is_paused = True


@fault(MemoryBroker, "pausing_is_the_groups_own_and_can_be_repeated")
class APauseHoldsTheWholeTopic:
    async def pause(self: MemoryBroker, source: Source) -> None:
        self._group(source)
        for group in self._topics[source.topic].values():
            group.queue.is_paused = True


@fault(MemoryBroker, "pausing_is_the_groups_own_and_can_be_repeated")
class PausingAgainResumes:
    async def pause(self: MemoryBroker, source: Source) -> None:
        queue = self._group(source).queue
        queue.is_paused = not queue.is_paused


@fault(MemoryBroker, "a_group_that_is_not_there_cannot_be_paused")
class PausingNobodyIsNoError:
    async def pause(self: MemoryBroker, source: Source) -> None:
        group = self._topics.get(source.topic, {}).get(source.group)
        if group is not None:
            group.queue.is_paused = True


# Retiring and comparing


@fault(MemoryBroker, "a_group_made_anew_after_it_was_retired_is_not_paused")
class APauseOutlivesItsGroup:
    async def retire(self: MemoryBroker, source: Source) -> None:
        assert isinstance(self, StoredBroker)
        group = self._topics.get(source.topic, {}).get(source.group)
        self._store.is_paused = group is not None and group.queue.is_paused
        await retire(self, source)

    async def ensure(self: MemoryBroker, topics: Sequence[str], sources: Sequence[Source]) -> None:
        assert isinstance(self, StoredBroker)
        await ensure(self, topics, sources)
        for source in sources if self._store.is_paused else ():
            self._topics[source.topic][source.group].queue.is_paused = True


@fault(
    MemoryBroker,
    "a_group_made_anew_after_it_was_retired_is_not_paused",
    "a_retired_group_is_gone_with_all_that_waits_for_it",
    "a_retired_group_is_missing_and_can_be_made_anew",
)
class RetiringKeepsEverything:
    async def retire(self: MemoryBroker, source: Source) -> None:
        pass


@fault(
    MemoryBroker,
    "a_retired_group_is_missing_and_can_be_made_anew",
    "retiring_one_group_takes_nothing_from_another",
)
class RetiringEndsTheWholeTopic:
    async def retire(self: MemoryBroker, source: Source) -> None:
        self._topics.pop(source.topic, None)


@fault(MemoryBroker, "looking_for_differences_makes_nothing")
class LookingMakesWhatIsMissing:
    async def differences(
        self: MemoryBroker, topics: Sequence[str], sources: Sequence[Source]
    ) -> Sequence[Difference]:
        found = await differences(self, topics, sources)
        if all(one.is_missing for one in found):
            await self.ensure(topics, sources)
        return found


# Rewinding


@fault(
    Log,
    "a_replay_reaches_its_group_alone_and_is_not_kept_again",
    "a_window_between_positions_ends_at_the_last",
    "a_window_in_time_holds_what_was_published_in_it",
    "reading_consumes_and_counts_nothing",
    "reading_goes_on_where_it_stopped_and_ends",
    "what_is_kept_survives_a_restart",
    "what_was_handled_can_be_read_again",
)
class NothingIsKept:
    def add(self: Log, message: Message, wall: float) -> None:
        pass


@fault(Log, "what_was_handled_can_be_read_again")
class HeadersAreNotKept:
    def add(self: Log, message: Message, wall: float) -> None:
        keep(self, replace(message, headers={}), wall)


@fault(
    Log,
    "a_replay_reaches_its_group_alone_and_is_not_kept_again",
    "a_window_between_positions_ends_at_the_last",
    "a_window_in_time_holds_what_was_published_in_it",
    "reading_consumes_and_counts_nothing",
    "reading_goes_on_where_it_stopped_and_ends",
)
class ReadingTakes:
    def read(self: Log, window: Window, limit: int) -> Sequence[Glimpse]:
        found = page(self, window, limit)
        self._kept.clear()
        return found


@fault(
    Log,
    "a_position_that_is_none_is_refused",
    "a_window_between_positions_ends_at_the_last",
    "reading_goes_on_where_it_stopped_and_ends",
)
class ReadingBeginsAnew:
    def read(self: Log, window: Window, limit: int) -> Sequence[Glimpse]:
        return page(self, window._replace(after=""), limit)


@fault(Log, "a_window_in_time_holds_what_was_published_in_it")
class TheEndOfATimeIsPartOfIt:
    def read(self: Log, window: Window, limit: int) -> Sequence[Glimpse]:
        until = None if window.until is None else window.until + 0.001
        return page(self, window._replace(until=until), limit)


@fault(Log, "a_window_in_time_holds_what_was_published_in_it")
class TheBeginningOfATimeIsNoPartOfIt:
    def read(self: Log, window: Window, limit: int) -> Sequence[Glimpse]:
        return page(self, window._replace(since=window.since + 0.001), limit)


@fault(
    Log, "a_message_tells_when_it_was_published", "a_window_in_time_holds_what_was_published_in_it"
)
class TheTimeIsTheSendersOwn:
    def read(self: Log, window: Window, limit: int) -> Sequence[Glimpse]:
        return [replace(one, at=one.message.time) for one in page(self, window, limit)]


@fault(Log, "a_window_between_positions_ends_at_the_last")
class TheLastPositionIsNoPartOfIt:
    def read(self: Log, window: Window, limit: int) -> Sequence[Glimpse]:
        return [one for one in page(self, window, limit) if one.position != window.last]


@fault(log, "a_position_that_is_none_is_refused")
class AWrongPositionIsTheBeginning:
    def _number(position: str) -> int:  # noqa: N805 - takes the place of a function
        return int(position) if position.isdigit() else 0


@fault(MemoryBroker, "a_topic_that_is_not_there_has_nothing_to_read")
class AnUnknownTopicCannotBeRead:
    async def read(self: MemoryBroker, topic: str, **window: Any) -> Sequence[Glimpse]:
        if topic not in self._topics:
            raise Misuse(f"there is no topic {topic}")
        return await read(self, topic, **window)


@fault(MemoryBroker, "a_replay_reaches_its_group_alone_and_is_not_kept_again")
class AReplayIsKeptAgain:
    def _deliver(self: MemoryBroker, message: Message, now: float) -> list[Bell]:
        if message.group is not None and message.topic in self._logs:
            self._logs[message.topic].add(message, self._clock.wall())
        return deliver(self, message, now)


@fault(MemoryBroker, "what_is_kept_survives_a_restart")
class TheLogEndsWithItsBroker:
    async def close(self: MemoryBroker) -> None:
        await close(self)
        self._logs.clear()
