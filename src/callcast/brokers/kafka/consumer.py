"""One worker's hold on a source: it asks the desk of its member, and carries copies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from confluent_kafka import KafkaError

from callcast.brokers.kafka import wire
from callcast.brokers.kafka.bells import Bell
from callcast.brokers.kafka.control import LOOK, Control
from callcast.brokers.kafka.desk import Move, Place
from callcast.brokers.kafka.hands import Lease
from callcast.brokers.kafka.letters import Letters
from callcast.brokers.kafka.link import Link
from callcast.brokers.kafka.member import Member
from callcast.brokers.kafka.sender import Parcel
from callcast.brokers.kafka.trimming import Trimming
from callcast.core.errors import CallcastError
from callcast.core.outcome import DEAD_REASON, Dead, Later, Outcome, Release
from callcast.ports.broker import Delivery, Source, Unsettled

Verdict: TypeAlias = tuple[Delivery, Outcome]

CATCH_UP = 5.0
"""Seconds that a fetch which does not wait takes at most to read what is there."""
ENOUGH = 1_000
"""Records that wait here: more need not be read for a look."""
RELEASE = Release()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the consumers of one source share."""

    link: Link
    control: Control
    letters: Letters
    trimming: Trimming
    leave: Callable[[Member], Awaitable[None]]


class KafkaConsumer:
    """A consumer of what is ready of one source. Made by `KafkaBroker.consume`.

    A settle that returned is carried out; it survives a crash once it is committed, some 20 ms
    later (beyond a gap too, as far as the commit's metadata has room for it).
    """

    def __init__(
        self,
        source: Source,
        member: Member,
        *,
        parts: Parts,
        lease: float,
        on_close: Callable[[KafkaConsumer], None],
    ) -> None:
        self.member: Member = member
        self._source = source
        self._parts = parts
        self._clock = parts.link.clock
        self._lease = lease
        self._on_close = on_close
        self._is_closed = False
        self._bell = Bell()
        member.bells.add(self._bell)
        with member.lock:
            self._hand = member.desk.join()

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Hand over up to `limit` deliveries, counted durably; waits for the first one only.

        With no time to wait it first reads what is there. Raises `Unavailable` when the broker is
        away, `Misuse` when the messages at the group's position are gone.
        """
        end = self._clock.now() + wait
        must_look = wait <= 0
        while not self._is_closed:
            self._bell.mute()
            await self._mind_pauses()
            await self._parts.trimming.look()
            if must_look:
                must_look = False
                await self._catch_up()
            taken = await self._take(limit)
            left = end - self._clock.now()
            if not taken and (left <= 0 or not self._hand.leases):
                taken = await self._take_suspect()
            if taken:
                return taken
            self._raise_trouble()
            if left <= 0:
                break
            await self._bell.wait(min(left, LOOK))
        return ()

    async def settle(self, verdicts: Sequence[Verdict]) -> None:
        """Carry out all verdicts; raises `Unsettled`, the rest being settled."""
        if self._is_closed:
            if verdicts:
                raise Unsettled(lost=[delivery for delivery, _ in verdicts], why="closed")
            return
        member, now = self.member, self._clock.now()
        with member.lock:
            moves, lost = member.desk.settle(self._hand, verdicts, now)
        failed, why = await self._moved(moves, lost) if moves else ([], "")
        member.nudge()
        if lost or failed:
            raise Unsettled(lost, failed, why)

    async def _moved(
        self, moves: Sequence[Move], lost: list[Delivery]
    ) -> tuple[list[Delivery], str]:
        """Copy what goes elsewhere; what could not be copied, and why. Adds to what is lost."""
        desk, lock = self.member.desk, self.member.lock
        errors: Mapping[int, KafkaError] = {}
        is_answered = False
        try:
            errors = await self._copy(moves)
            is_answered = True
        finally:
            failed: list[Delivery] = []
            now = self._clock.now()
            with lock:
                for index, move in enumerate(moves):
                    # Cancelled, it is not known whether the copies are stored: all are still ours.
                    is_stored = is_answered and index not in errors
                    if not desk.moved(self._hand, move, is_stored=is_stored, now=now):
                        lost.append(move.delivery)
                    elif not is_stored:
                        failed.append(move.delivery)
        return failed, next((error.str() for error in errors.values()), "")

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Extend these leases by a full one from now; what is lost stays lost."""
        until = self._clock.now() + self._lease
        with self.member.lock:
            self.member.desk.renew(self._hand, deliveries, until)

    async def close(self) -> None:
        """Give back what is still held, uncounted, and end. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        member = self.member
        member.bells.discard(self._bell)
        with member.lock:
            member.desk.leave(self._hand, self._clock.now())
        member.nudge()
        self._bell.ring()
        self._on_close(self)
        await self._parts.leave(member)

    async def _take_suspect(self) -> Sequence[Delivery]:
        """One that may have killed its worker, when there is nothing else.

        While this consumer has others it waits for them: they would be suspected with it.
        """
        with self.member.lock:
            has_any = self.member.desk.has_suspects
        if not has_any:
            return ()
        await self._catch_up()
        return await self._take(0)

    async def _take(self, limit: int) -> Sequence[Delivery]:
        """Take up to so many; 0 is one suspect."""
        member, now = self.member, self._clock.now()
        with member.lock:
            taken, is_durable = member.desk.take(self._hand, limit, lease=self._lease, now=now)
        if is_durable:
            return taken
        is_noted = False
        try:
            await member.commits.durable()
            is_noted = True
        finally:
            if not is_noted:  # cancelled, or the broker is away: it was not handed over
                with member.lock:
                    release = [(delivery, RELEASE) for delivery in taken]
                    member.desk.settle(self._hand, release, self._clock.now())
        with member.lock:  # what was revoked meanwhile is somebody else's
            return [one for one in taken if self._is_held(one)]

    def _is_held(self, delivery: Delivery) -> bool:
        lease = delivery.handle
        return isinstance(lease, Lease) and self._hand.leases.get(lease.token) is lease

    async def _mind_pauses(self) -> None:
        control = self._parts.control
        await control.look()
        self.member.desk.is_paused = control.roll.is_paused(self._source)

    def _raise_trouble(self) -> None:
        trouble = self.member.trouble
        if trouble is not None:
            self.member.heard(trouble)
            raise trouble

    async def _catch_up(self) -> None:
        """Read what is there now, or until something can be handed out."""
        limit = self._clock.now() + CATCH_UP
        await self._until(lambda: self.member.is_assigned, limit)
        with self.member.lock:
            places = list(self.member.desk.windows)
        try:
            ends = await self._parts.link.ends(places)
        except CallcastError:
            if self._is_closed:
                return
            raise
        await self._until(lambda: self._is_caught_up(ends), limit)

    async def _until(self, is_so: Callable[[], bool], limit: float) -> None:
        while not (self._is_closed or self.member.is_ended or is_so()):
            left = limit - self._clock.now()
            if left <= 0:
                return
            self._bell.mute()
            if not is_so():
                await self._bell.wait(min(left, 0.1))

    def _is_caught_up(self, ends: Mapping[Place, int]) -> bool:
        with self.member.lock:
            windows = self.member.desk.windows
            return all(
                place not in windows
                or windows[place].position >= end
                or len(windows[place].open) >= ENOUGH
                for place, end in ends.items()
            )

    async def _copy(self, moves: Sequence[Move]) -> Mapping[int, KafkaError]:
        parcels = [self._parcel(move) for move in moves]
        errors = await self._parts.link.sender.send(parcels)
        if any(isinstance(move.outcome, Dead) for move in moves):
            self._parts.letters.buried()
        return errors

    def _parcel(self, move: Move) -> Parcel:
        item, outcome, names = move.lease.item, move.outcome, self.member.names
        record = item.record
        time = int(record.time * 1_000)
        if isinstance(outcome, Later):
            due = self._clock.wall() + outcome.delay
            headers = wire.put_off(record, outcome.notes, round=item.round + 1, due=due)
            topic = names.retry(outcome.delay)
            return Parcel(topic, record.key, record.value, headers, time=time)
        notes = {**outcome.notes, DEAD_REASON: outcome.reason}
        headers = wire.buried(
            record, notes, group=names.group, attempts=item.round + item.crashes + 1
        )
        key = wire.identity(item.message)
        return Parcel(names.dead, key, record.value or b"", headers, 0, time)
