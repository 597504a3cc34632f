"""Wrong brokers that publish, spread to groups and remember in their own way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace
from wrong_brokers import StoredBroker, fault

from callcast.brokers.memory.broker import Bell, Group, MemoryBroker, MemoryConsumer
from callcast.core.errors import NotSent
from callcast.core.message import Message
from callcast.core.outcome import DONE, Outcome
from callcast.ports.broker import Delivery, Source, Start

refusal = MemoryBroker._refusal
deliver = MemoryBroker._deliver
new_group = MemoryBroker._new_group
close = MemoryConsumer.close
close_broker = MemoryBroker.close
publish = MemoryBroker.publish
consume = StoredBroker.consume


@fault(MemoryBroker, "an_event_that_nobody_ever_subscribed_to_is_kept_or_refused")
class SilenceForTheUnheard:
    def _refusal(self: MemoryBroker, message: Message, *, is_behind: bool) -> NotSent | None:
        return refusal(self, replace(message, unheard=True), is_behind=is_behind)


@fault(
    MemoryBroker,
    "every_group_gets_every_message",
    "a_replay_reaches_its_group_alone_and_is_not_kept_again",
)
class OnlyTheFirstGroupHears:
    def _deliver(self: MemoryBroker, message: Message, now: float) -> list[Bell]:
        groups = list(self._topics.get(message.topic, {}).values())
        if (
            message.group is None
            and len(groups) > 1
            and all(group.queue._hands for group in groups)
        ):
            for group in groups[:1]:
                group.queue.add(message, now)
            return [group.bell for group in groups]
        return deliver(self, message, now)


@fault(MemoryBroker, "workers_of_one_group_share_its_messages")
class EveryWorkerHearsEverything:
    def _deliver(self: MemoryBroker, message: Message, now: float) -> list[Bell]:
        bells = deliver(self, message, now)
        for group in self._topics.get(message.topic, {}).values():
            for _ in group.queue._hands[1:]:
                group.queue.add(message, now)
        return bells


@fault(
    MemoryBroker,
    "a_message_for_one_group_reaches_only_that_group",
    "a_redrive_reaches_only_the_group_that_failed",
    "a_replay_reaches_its_group_alone_and_is_not_kept_again",
)
class ARedriveReachesAllGroups:
    def _deliver(self: MemoryBroker, message: Message, now: float) -> list[Bell]:
        return deliver(self, replace(message, group=None), now)


@fault(MemoryBroker, "a_message_for_a_group_that_is_not_there_is_refused")
class AMessageForNobodyIsDropped:
    def _refusal(self: MemoryBroker, message: Message, *, is_behind: bool) -> NotSent | None:
        return refusal(self, replace(message, group=None), is_behind=is_behind)

    def _deliver(self: MemoryBroker, message: Message, now: float) -> list[Bell]:
        if message.group not in {None, *self._topics.get(message.topic, {})}:
            return []
        return deliver(self, message, now)


@fault(MemoryBroker, "a_batch_stops_a_key_at_its_first_failure")
class ABatchGoesOnBehindAFailure:
    def _refusal(self: MemoryBroker, message: Message, *, is_behind: bool) -> NotSent | None:
        return refusal(self, message, is_behind=False)


@fault(MemoryBroker, "bodies_come_as_they_went")
class BodiesAreText:
    def _deliver(self: MemoryBroker, message: Message, now: float) -> list[Bell]:
        body = message.body.rstrip(b"\0")
        return deliver(self, replace(message, body=body), now)


@fault(MemoryBroker, "headers_come_as_they_went")
class HeadersAreAscii:
    def _deliver(self: MemoryBroker, message: Message, now: float) -> list[Bell]:
        headers = {
            name: text.encode("ascii", "replace").decode() for name, text in message.headers.items()
        }
        return deliver(self, replace(message, headers=headers), now)


@fault(MemoryBroker, "all_attributes_of_a_message_come_as_they_went")
class TimesAreWholeSeconds:
    def _deliver(self: MemoryBroker, message: Message, now: float) -> list[Bell]:
        return deliver(self, replace(message, time=float(int(message.time))), now)


@fault(
    MemoryBroker,
    "a_new_group_hears_what_is_published_after_it_was_made",
    "a_retired_group_is_missing_and_can_be_made_anew",
)
class ANewGroupHearsTheOld:
    def _new_group(self: MemoryBroker, source: Source, others: Iterable[Group]) -> Group:
        group = new_group(self, replace(source, start=Start.EARLIEST), others)
        group.queue.source = source
        return group


@fault(MemoryBroker, "a_group_that_starts_at_the_earliest_hears_what_is_kept")
class TheEarliestIsNow:
    def _new_group(self: MemoryBroker, source: Source, others: Iterable[Group]) -> Group:
        return new_group(self, source, ())


@fault(MemoryBroker, "using_a_closed_broker_is_an_error")
class AClosedBrokerSaysNothing:
    def _check_open(self: MemoryBroker) -> None:
        pass


@fault(
    StoredBroker,
    "what_was_published_survives_a_restart",
    "a_message_put_off_survives_a_restart_and_is_not_early_after_it",
    "what_is_done_stays_done_over_a_restart",
    "dead_letters_survive_a_restart",
    "a_parked_key_stays_parked_over_a_restart",
    "a_pause_survives_a_restart",
)
class ARestartForgetsEverything:
    async def close(self: StoredBroker) -> None:
        await close_broker(self)
        self._store.topics.clear()


@fault(StoredBroker, "what_is_done_stays_done_over_a_restart")
class ARestartUndoesWhatWasDone:
    async def close(self: StoredBroker) -> None:
        await close_broker(self)
        for groups in self._topics.values():
            for group in groups.values():
                for message in group.queue.__dict__.pop("settled", []):
                    group.queue.add(message, self._clock.now())

    async def consume(self: StoredBroker, source: Source, **options: Any) -> MemoryConsumer:
        consumer = await consume(self, source, **options)
        settle = consumer.settle

        async def note(verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
            await settle(verdicts)
            done = [delivery.message for delivery, outcome in verdicts if outcome is DONE]
            if source.ordered:
                return
            consumer._queue.__dict__.setdefault("settled", []).extend(done)

        consumer.settle = note  # type: ignore[method-assign]
        return consumer


@fault(StoredBroker, "a_pause_survives_a_restart")
class ARestartEndsAPause:
    async def close(self: StoredBroker) -> None:
        await close_broker(self)
        for groups in self._topics.values():
            for group in groups.values():
                group.queue.is_paused = False


@fault(MemoryBroker, "publishing_nothing_is_no_error")
class PublishingNothingIsAnError:
    async def publish(self: MemoryBroker, messages: Sequence[Message]) -> None:
        _first = messages[0]
        await publish(self, messages)
