"""Dead letters: a compacted topic keyed by source and id; a tombstone takes a letter away.

Whoever looks reads the topic to its end and remembers where each letter lies, not its body. The
leases on letters are of this process: two processes that redrive at once may both send a letter,
under the same id.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from msgspec import Struct

from callcast.brokers.kafka import wire
from callcast.brokers.kafka.bells import Bell, Bells
from callcast.brokers.kafka.control import LOOK
from callcast.brokers.kafka.link import Link
from callcast.brokers.kafka.names import names_of
from callcast.brokers.kafka.sender import Parcel
from callcast.brokers.kafka.wire import Record
from callcast.core.outcome import DEAD_REASON, Dead, Later, Outcome, Release
from callcast.ports.broker import Delivery, Glimpse, Source, Unsettled

PAGE = 500


class Letter(Struct, eq=False):
    """Where a dead letter lies, and who has it."""

    key: bytes
    offset: int
    time: float
    holder: object = None
    token: int = 0
    until: float = math.inf
    due: float = 0.0
    crashes: int = 0


class Held(Struct, eq=False):
    """The handle of a delivery."""

    letter: Letter
    token: int


class Letters:
    """The dead letters of one source."""

    def __init__(self, source: Source, link: Link) -> None:
        self.bells: Bells = Bells()
        self._source = source
        self._link = link
        self._place = (names_of(source).dead, 0)
        self._position = 0
        self._all: dict[bytes, Letter] = {}  # oldest first
        self._reading = asyncio.Lock()
        self._tokens = 0

    async def refresh(self) -> None:
        """Read up to the end. None are left where somebody has deleted the topic."""
        async with self._reading:
            if not await self._link.partitions([self._place[0]]):
                self._forget()
                return
            end = (await self._link.ends([self._place]))[self._place]
            if end < self._position:  # somebody has made it anew
                self._forget()
            while self._position < end:
                found = await self._link.read({self._place: self._position}, {self._place: end})
                records = found.get(self._place, [])
                for record in records:
                    self._apply(record)
                whole = not records or len(records) < PAGE
                self._position = end if whole else records[-1].offset + 1

    def _forget(self) -> None:
        self._all.clear()
        self._position = 0

    def _apply(self, record: Record) -> None:
        key = record.key or b""
        before = self._all.pop(key, None)
        if record.value is None:
            return
        letter = Letter(key, record.offset, record.time)
        if before is not None:  # it died again while somebody had it
            letter.holder, letter.token, letter.until = before.holder, before.token, before.until
        self._all[key] = letter

    @property
    def count(self) -> int:
        """How many there are, as far as was read."""
        return len(self._all)

    @property
    def oldest(self) -> float:
        """The wall-clock time of the oldest; infinity when there is none."""
        return min((letter.time for letter in self._all.values()), default=math.inf)

    async def page(self, after: str, limit: int) -> list[Glimpse]:
        """The next letters, oldest first."""
        await self.refresh()
        first = int(after) + 1 if after else 0
        wanted = [letter for letter in self._all.values() if letter.offset >= first][:limit]
        bodies = await self._bodies(wanted)
        return [
            Glimpse(
                wire.decode(bodies[letter.offset], self._source.topic),
                position=str(letter.offset),
            )
            for letter in wanted
            if letter.offset in bodies
        ]

    def take(self, holder: object, limit: int, *, lease: float, now: float) -> list[Letter]:
        """Lease the next ones that nobody has."""
        taken: list[Letter] = []
        for letter in self._all.values():
            if len(taken) >= limit:
                break
            if letter.holder is not None and letter.until <= now:
                letter.holder = None
                letter.crashes += 1
            if letter.holder is None and letter.due <= now:
                self._tokens += 1
                letter.holder, letter.token = holder, self._tokens
                letter.until = now + lease
                taken.append(letter)
        return taken

    async def deliveries(self, letters: Sequence[Letter]) -> list[Delivery]:
        """The letters themselves."""
        bodies = await self._bodies(letters)
        return [
            Delivery(
                wire.decode(bodies[letter.offset], self._source.topic),
                0,
                letter.crashes,
                Held(letter, letter.token),
            )
            for letter in letters
            if letter.offset in bodies
        ]

    def give_back(self, letter: Letter, due: float = 0.0) -> None:
        """End a lease without a verdict."""
        letter.holder, letter.until, letter.due = None, math.inf, due
        self.bells.ring()

    def give_back_all(self, holder: object) -> None:
        """End all leases of one consumer."""
        for letter in self._all.values():
            if letter.holder is holder:
                self.give_back(letter)

    def buried(self) -> None:
        """Tell who waits that a message died."""
        self.bells.ring()

    async def write(self, parcels: Sequence[Parcel]) -> set[int]:
        """Write to the topic; the places of those that were refused."""
        return set(await self._link.sender.send(parcels))

    def tombstone(self, letter: Letter) -> Parcel:
        """What takes a letter away."""
        return Parcel(self._place[0], letter.key, None, [], 0)

    async def again(self, letter: Letter, verdict: Dead) -> Parcel:
        """The letter with another reason."""
        record = (await self._bodies([letter]))[letter.offset]
        notes = {**verdict.notes, DEAD_REASON: verdict.reason}
        return Parcel(
            self._place[0],
            letter.key,
            record.value,
            wire.with_headers(record.headers, notes),
            0,
            int(record.time * 1_000),
        )

    def has_replaced(self, letter: Letter) -> bool:
        """Whether its message has died again; then the later letter is anybody's."""
        later = self._all.get(letter.key)
        if later is None or later is letter:
            return False
        self.give_back(later)
        return True

    def gone(self, letter: Letter) -> None:
        """Forget a letter that was taken away."""
        if self._all.get(letter.key) is letter:
            del self._all[letter.key]

    async def _bodies(self, letters: Sequence[Letter]) -> dict[int, Record]:
        """The records of these letters by offset."""
        wanted = sorted(letter.offset for letter in letters)
        found: dict[int, Record] = {}
        at = wanted[0] if wanted else 0
        while wanted and at <= wanted[-1]:
            read = await self._link.read({self._place: at}, {self._place: wanted[-1] + 1})
            records = read.get(self._place, [])
            if not records:
                break
            found.update((record.offset, record) for record in records)
            at = records[-1].offset + 1
        return {offset: found[offset] for offset in wanted if offset in found}


class LettersConsumer:
    """A consumer of the dead letters of one source."""

    def __init__(
        self,
        letters: Letters,
        link: Link,
        *,
        lease: float,
        on_close: Callable[[LettersConsumer], None],
    ) -> None:
        self._letters = letters
        self._clock = link.clock
        self._lease = lease
        self._on_close = on_close
        self._bell = Bell()
        self._is_closed = False
        letters.bells.add(self._bell)

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Hand over up to `limit` letters; waits for the first one only."""
        end = self._clock.now() + wait
        while not self._is_closed:
            self._bell.mute()
            await self._letters.refresh()
            taken = self._letters.take(self, limit, lease=self._lease, now=self._clock.now())
            if taken:
                return await self._open(taken)
            left = end - self._clock.now()
            if left <= 0:
                break
            await self._bell.wait(min(left, LOOK))
        return ()

    async def _open(self, taken: Sequence[Letter]) -> Sequence[Delivery]:
        is_open = False
        try:
            deliveries = await self._letters.deliveries(taken)
            is_open = True
        finally:
            if not is_open:
                for letter in taken:
                    self._letters.give_back(letter)
        return deliveries

    async def settle(self, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Carry out all verdicts; raises `Unsettled`. What is done is durable.

        A letter is taken away by its key: where its message has died again since it was handed
        out, that would take the later letter too, and only the compaction takes the earlier one.
        """
        await self._letters.refresh()
        lost: list[Delivery] = []
        written: list[tuple[Delivery, Letter, Parcel]] = []
        for delivery, outcome in verdicts:
            letter = self._held(delivery)
            if letter is None:
                lost.append(delivery)
                continue
            parcel = await self._carried_out(letter, outcome)
            if parcel is not None:
                written.append((delivery, letter, parcel))
        refused = await self._letters.write([parcel for _, _, parcel in written])
        failed: list[Delivery] = []
        for index, (delivery, letter, parcel) in enumerate(written):
            if index in refused:
                failed.append(delivery)
            elif parcel.value is None:
                self._letters.gone(letter)
            else:
                self._letters.give_back(letter)
        if lost or failed:
            raise Unsettled(lost, failed, "the dead topic refused them" if failed else "")

    async def _carried_out(self, letter: Letter, outcome: Outcome) -> Parcel | None:
        """What is to be written for this verdict, if anything is."""
        if isinstance(outcome, Later | Release):
            after = outcome.delay if isinstance(outcome, Later) else outcome.after
            self._letters.give_back(letter, self._clock.now() + after)
            return None
        if self._letters.has_replaced(letter):
            letter.holder = None  # the later letter stands; of this one there may be nothing left
            return None
        if isinstance(outcome, Dead):
            return await self._letters.again(letter, outcome)
        return self._letters.tombstone(letter)

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Extend these leases by a full one."""
        until = self._clock.now() + self._lease
        for delivery in deliveries:
            letter = self._held(delivery)
            if letter is not None:
                letter.until = until

    async def close(self) -> None:
        """Give back what is held, and end. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._letters.bells.discard(self._bell)
            self._letters.give_back_all(self)
            self._bell.ring()
            self._on_close(self)

    def _held(self, delivery: Delivery) -> Letter | None:
        """The letter of a delivery that is still this consumer's."""
        held = delivery.handle
        if self._is_closed or not isinstance(held, Held):
            return None
        letter = held.letter
        is_ours = letter.holder is self and letter.token == held.token
        return letter if is_ours and letter.until > self._clock.now() else None
