"""Wrong brokers that carry out verdicts in their own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from wrong_brokers import StoredBroker, fault

from callcast.brokers.memory import queue
from callcast.brokers.memory.broker import MemoryConsumer
from callcast.brokers.memory.queue import Hand, Lease, Letters, Queue
from callcast.core.message import Message
from callcast.core.outcome import DONE, Dead, Done, Later, Outcome, Release
from callcast.policies.shelves import Entry, Lanes
from callcast.ports.broker import Delivery, Source, Unsettled

Verdicts = Sequence[tuple[Delivery, Outcome]]

carry_out = Queue._carry_out
consume = StoredBroker.consume
settle = Queue.settle
settle_all = MemoryConsumer.settle
take = Queue.take
expire = Queue._expire
add = Lanes.add
dead_letter = queue.dead_letter


@fault(Queue, "each_delivery_gets_its_own_verdict")
class VerdictsOfOneCallAreMixedUp:
    """It carries them out kind by kind, and pairs them wrongly when there is one of each."""

    def settle(self: Queue, hand: Hand, verdicts: Verdicts, now: float) -> list[Delivery]:
        outcomes = [outcome for _, outcome in verdicts]
        if len({type(outcome) for outcome in outcomes}) == 4:
            outcomes.reverse()
        mixed = [(each, one) for (each, _), one in zip(verdicts, outcomes, strict=True)]
        return settle(self, hand, mixed, now)


@fault(
    MemoryConsumer,
    "settling_nothing_is_no_error",
    "a_thousand_keys_keep_their_order",
    "the_order_of_each_key_survives_failures",
)
class SettlingNothingIsAnError:
    async def settle(self: MemoryConsumer, verdicts: Verdicts) -> None:
        _first = verdicts[0]
        await settle_all(self, verdicts)


@fault(Queue, "later_is_never_early")
class LaterIsEarly:
    def _carry_out(self: Queue, entry: Entry, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Later):
            outcome = Later(outcome.delay / 2)
        carry_out(self, entry, outcome, now)


@fault(
    Queue,
    "later_is_counted_as_a_round",
    "a_message_put_off_survives_a_restart_and_is_not_early_after_it",
)
class LaterIsNotCounted:
    def _carry_out(self: Queue, entry: Entry, outcome: Outcome, now: float) -> None:
        round_ = entry.round
        carry_out(self, entry, outcome, now)
        entry.round = round_


@fault(Queue, "later_forgets_the_crashes")
class LaterResetsNothing:
    def _carry_out(self: Queue, entry: Entry, outcome: Outcome, now: float) -> None:
        crashes = entry.crashes
        carry_out(self, entry, outcome, now)
        entry.crashes = crashes


@fault(Queue, "a_message_released_is_not_counted", "a_release_leaves_the_counts_as_they_are")
class ReleaseIsCounted:
    def _carry_out(self: Queue, entry: Entry, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Release):
            entry.round += 1
        carry_out(self, entry, outcome, now)


@fault(Queue, "a_release_leaves_the_counts_as_they_are")
class ReleaseForgetsTheCrashes:
    def _carry_out(self: Queue, entry: Entry, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Release):
            entry.crashes = 0
        carry_out(self, entry, outcome, now)


@fault(Queue, "a_release_for_some_time_is_never_early")
class ReleaseForgetsItsTime:
    def _carry_out(self: Queue, entry: Entry, outcome: Outcome, now: float) -> None:
        carry_out(self, entry, Release() if isinstance(outcome, Release) else outcome, now)


@fault(Queue, "settling_one_does_not_settle_those_before_it")
class DoneSettlesThoseBeforeIt:
    def settle(self: Queue, hand: Hand, verdicts: Verdicts, now: float) -> list[Delivery]:
        lost = settle(self, hand, verdicts, now)
        for delivery, outcome in verdicts if self._lanes is None else ():
            lease = delivery.handle
            if isinstance(outcome, Done) and isinstance(lease, Lease):
                for token in [token for token in hand.leases if token < lease.token]:
                    carry_out(self, hand.leases.pop(token).entry, DONE, now)
        return lost


@fault(Queue, "what_is_done_never_comes_again")
class DoneComesAgain:
    """To the first consumer that opens after the lease would have ended."""

    def _carry_out(self: Queue, entry: Entry, outcome: Outcome, now: float) -> None:
        carry_out(self, entry, outcome, now)
        if isinstance(outcome, Done):
            self.__dict__.setdefault("done", []).append((entry.message, now))

    def take(self: Queue, hand: Hand, limit: int, *, lease: float, now: float) -> list[Delivery]:
        known = self.__dict__.setdefault("known", set())
        if hand not in known and not self._open:
            for message, done_at in self.__dict__.pop("done", []):
                if now > done_at + lease:
                    self.add(message, now)
        known.add(hand)
        return take(self, hand, limit, lease=lease, now=now)


@fault(
    MemoryConsumer,
    "a_settle_after_the_lease_is_refused_and_changes_nothing",
    "a_stale_verdict_does_not_spoil_the_others_of_its_call",
    "a_second_verdict_is_too_late",
)
class StaleVerdictsAreIgnored:
    async def settle(self: MemoryConsumer, verdicts: Verdicts) -> None:
        self._queue.settle(self._hand, verdicts, self._clock.now())
        self._bell.ring()


@fault(
    Queue,
    "a_settle_after_the_lease_is_refused_and_changes_nothing",
    "a_stale_verdict_does_not_spoil_the_others_of_its_call",
)
class ThereIsNoFence:
    def settle(self: Queue, hand: Hand, verdicts: Verdicts, now: float) -> list[Delivery]:
        outcomes = dict(verdicts)
        lost: list[Delivery] = []
        for delivery in settle(self, hand, verdicts, now):
            lease = delivery.handle
            assert isinstance(lease, Lease)
            token = lease.entry.token
            holder = next((one for one in self._hands if token in one.leases), None)
            if holder is None:
                lost.append(delivery)
            else:
                carry_out(self, holder.leases.pop(token).entry, outcomes[delivery], now)
        return lost


@fault(MemoryConsumer, "a_stale_verdict_does_not_spoil_the_others_of_its_call")
class OneStaleVerdictSpoilsAll:
    async def settle(self: MemoryConsumer, verdicts: Verdicts) -> None:
        self._queue.tick(self._clock.now())
        held = list(self._hand.leases.values())
        stale = [delivery for delivery, _ in verdicts if delivery.handle not in held]
        if stale:
            raise Unsettled(lost=stale)
        self._queue.settle(self._hand, verdicts, self._clock.now())
        self._bell.ring()


@fault(StoredBroker, "a_refused_settle_can_be_settled_again")
class WhatIsRefusedIsLost:
    async def consume(self: StoredBroker, source: Source, **options: Any) -> MemoryConsumer:
        consumer = await consume(self, source, **options)
        settle = consumer.settle

        async def lose(verdicts: Verdicts) -> None:
            try:
                await settle(verdicts)
            except Unsettled as error:
                raise Unsettled(lost=[*error.failed, *error.lost]) from error

        consumer.settle = lose  # type: ignore[method-assign]
        return consumer


@fault(
    Queue,
    "a_renewed_lease_holds",
    "a_lease_is_renewed_from_another_thread",
    "only_what_is_named_is_renewed",
    "a_stale_verdict_does_not_spoil_the_others_of_its_call",
)
class RenewingDoesNothing:
    def _expire(self: Queue, hand: Hand, now: float) -> None:
        for lease in hand.leases.values():
            lease.until = now
        expire(self, hand, now)


@fault(
    MemoryConsumer,
    "only_what_is_named_is_renewed",
    "a_stale_verdict_does_not_spoil_the_others_of_its_call",
)
class RenewingOneRenewsAll:
    def renew(self: MemoryConsumer, deliveries: Sequence[Delivery]) -> None:
        for lease in self._hand.leases.values():
            lease.until = self._clock.now() + self._lease


@fault(Queue, "crashes_are_counted_exactly", "suspects_come_last")
class CrashesAreNotCounted:
    def _expire(self: Queue, hand: Hand, now: float) -> None:
        for lease in hand.leases.values():
            lease.entry.crashes -= lease.until <= now
        expire(self, hand, now)


@fault(Queue, "crashes_are_counted_exactly")
class CrashesAreCountedUpToFive:
    def _expire(self: Queue, hand: Hand, now: float) -> None:
        expire(self, hand, now)
        for entry in self.unfinished():
            entry.crashes = min(entry.crashes, 5)


@fault(queue, "a_dead_letter_keeps_its_bytes")
class DeadTruncatesTheBody:
    @staticmethod
    def dead_letter(message: Message, verdict: Dead) -> Message:
        return replace(dead_letter(message, verdict), body=message.body[:1_000])


@fault(queue, "a_dead_letter_says_why")
class DeadDropsTheReason:
    @staticmethod
    def dead_letter(message: Message, verdict: Dead) -> Message:
        return replace(message, headers={**message.headers, **verdict.notes})


@fault(queue, "a_dead_letter_keeps_its_attributes_and_headers")
class DeadDropsTheHeaders:
    @staticmethod
    def dead_letter(message: Message, verdict: Dead) -> Message:
        return dead_letter(replace(message, headers={}), verdict)


@fault(Queue, "a_redriven_message_starts_anew_under_its_id")
class RedriveKeepsTheRound:
    def add(self: Queue, message: Message, now: float, *, due: float = 0.0) -> Entry:
        entry = queue_add(self, message, now, due=due)
        if message.group is not None and self.dead is not None:
            entry.round = 1
        return entry


queue_add = Queue.add


@fault(Queue, "a_dead_letter_looked_at_and_released_stays")
class DeadLettersAreDroppedAfterTwentyLooks:
    def _carry_out(self: Queue, entry: Entry, outcome: Outcome, now: float) -> None:
        if self.dead is None and isinstance(outcome, Release):
            entry.crashes += 1
            if entry.crashes > 20:
                outcome = DONE
        carry_out(self, entry, outcome, now)


@fault(Letters, "a_message_that_dies_again_has_one_dead_letter")
class EveryDeathMakesALetter:
    def bury(self: Letters, entry: Entry, verdict: Dead, now: float) -> None:
        self.add(dead_letter(entry.message, verdict), now)


@fault(Letters, "a_message_that_dies_again_while_it_is_redriven_stays_dead")
class ALetterInHandIsReplacedToo:
    def bury(self: Letters, entry: Entry, verdict: Dead, now: float) -> None:
        held = {letter: letter.token for letter in self._latest.values()}
        for letter in held:
            letter.token = 0
        bury(self, entry, verdict, now)
        for letter, token in held.items():
            letter.token = token


bury = Letters.bury


@fault(
    Lanes,
    "a_parked_key_waits_and_the_others_go_on",
    "a_redriven_letter_goes_before_what_its_key_held",
    "a_redriven_letter_that_dies_again_holds_its_key_again",
    "a_parked_key_that_is_let_go_says_how_many_it_held",
    "a_parked_key_stays_parked_over_a_restart",
)
class ParkingHoldsNothing:
    def park(self: Lanes, entry: Entry) -> None:
        pass


@fault(
    Lanes,
    "a_redriven_letter_goes_before_what_its_key_held",
    "a_redriven_letter_that_dies_again_holds_its_key_again",
    "a_parked_key_stays_parked_over_a_restart",
)
class ARedrivenLetterGoesLast:
    def add(self: Lanes, entry: Entry, now: float) -> None:
        identity = (entry.message.source, entry.message.id)
        if identity in self._parked:
            self.unpark(str(entry.message.key), now)
        add(self, entry, now)


@fault(Queue, "after_a_dead_letter_its_key_goes_on")
class EveryDeadLetterParksItsKey:
    def _carry_out(self: Queue, entry: Entry, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Dead):
            outcome = Dead(outcome.reason, outcome.notes, park=True)
        carry_out(self, entry, outcome, now)
