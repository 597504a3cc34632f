"""Deliveries that need more than a place at the desk: their place is found here, in their order.

| a delivery                                | what                                              |
|-------------------------------------------|---------------------------------------------------|
| has been back to its queue                | is it pardoned? what is not counts as a crash     |
| is not due                                | goes to the next step of the ladder; or, with     |
|                                           | less than a step left, waits out the rest here    |
| has crashed twice, unordered              | goes to the suspects, where it runs alone         |
| has been back to a queue of others that   | the same: there each crash is counted             |
| does not count, a classic one             |                                                   |
| comes from the suspects of an ordered one | was late, and goes to its lane                    |

What goes elsewhere is copied there, then acknowledged. While one waits, all that come behind it
wait too: an ordered group would be out of order otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from callcast.brokers.rabbitmq import copies
from callcast.brokers.rabbitmq.confirms import Fate
from callcast.brokers.rabbitmq.desk import Desk, Stub
from callcast.brokers.rabbitmq.house import House
from callcast.brokers.rabbitmq.ladder import STEPS
from callcast.brokers.rabbitmq.letters import Letter
from callcast.brokers.rabbitmq.names import Names
from callcast.brokers.rabbitmq.pardons import Return, back, records
from callcast.brokers.rabbitmq.wire import Arrived
from callcast.core.errors import CallcastError
from callcast.policies.shelves import SUSPECT_CRASHES

HELD_SHARE = 4
"""A quarter of what is fetched ahead may wait here for the last second of a delay: the ladder has
no finer step, and would make it late by up to a second. A crash brings it back, not early."""
PAUSE = 0.1
"""Seconds before what could not be copied goes back, to be tried again."""


class Mouth(Protocol):
    """What a sorter needs of its intake."""

    desk: Desk
    lock: threading.Lock

    @property
    def generation(self) -> int:
        """Of its channel."""
        ...

    def dismiss(self, done: Sequence[Stub], back: Sequence[Stub]) -> None:
        """Acknowledge these, give back those."""
        ...

    def wake(self) -> None:
        """There is something to fetch."""
        ...


class Onward(NamedTuple):
    """A delivery whose way goes on elsewhere, by this copy."""

    stub: Stub
    arrived: Arrived
    letter: Letter


class Sorter:
    """Of one intake, on the thread's loop."""

    def __init__(
        self, house: House, mouth: Mouth, names: Names, *, is_ordered: bool, prefetch: int
    ) -> None:
        self._house = house
        self._mouth = mouth
        self._names = names
        self._is_ordered = is_ordered
        self._held_max = prefetch // HELD_SHARE
        self._odd: list[tuple[Stub, Arrived]] = []
        self._is_sorting = False

    @property
    def waiting(self) -> int:
        """How many have no place yet."""
        return len(self._odd)

    @property
    def returns(self) -> list[Return]:
        """What would go back of it."""
        return [back(stub.queue, one.message, one.count) for stub, one in self._odd]

    def clear(self) -> None:
        """The channel is lost: all of it is back at the broker."""
        self._odd.clear()

    def takes(self, stub: Stub, arrived: Arrived) -> bool:
        """Whether this one is for here; then its place is found soon."""
        is_odd = arrived.count or arrived.due or stub.queue == self._names.suspects
        is_odd = is_odd or arrived.is_uncounted
        if not (is_odd or self._odd):
            return False
        self._odd.append((stub, arrived))
        if not self._is_sorting:
            self._is_sorting = True
            self._house.thread.begin(self._sort())
        return True

    async def _sort(self) -> None:
        try:
            while self._odd:
                odd, generation = list(self._odd), self._mouth.generation
                if any(arrived.count for _, arrived in odd):
                    await self._house.hear_pardons()
                if generation != self._mouth.generation:
                    continue
                del self._odd[: len(odd)]  # what came meanwhile stands behind these
                moves = self._place(odd)
                self._mouth.wake()
                await self._send_on(moves)
        finally:
            self._is_sorting = False

    def _place(self, odd: Sequence[tuple[Stub, Arrived]]) -> list[Onward]:
        moves: list[Onward] = []
        now, wall = self._house.clock.now(), self._house.clock.wall()
        desk = self._mouth.desk
        with self._mouth.lock:
            room = 0 if self._is_ordered else self._held_max - desk.delayed(now)
            for stub, arrived in odd:
                left = max(0.0, arrived.due - wall)
                is_held = 0 < left < STEPS[0] and room > 0
                room -= is_held
                crashes = arrived.crashes + self._crashes(stub, arrived)
                letter = self._elsewhere(
                    stub, arrived, crashes=crashes, left=0.0 if is_held else left
                )
                if letter is None:
                    due = now + left if left else 0.0
                    desk.arrive(arrived, replace(stub, crashes=crashes, due=due), now)
                else:
                    moves.append(Onward(stub, arrived, letter))
        return moves

    def _crashes(self, stub: Stub, arrived: Arrived) -> int:
        if not arrived.count:
            return 0
        returned = back(stub.queue, arrived.message, arrived.count)
        return self._house.pardons.crashes(returned)

    def _elsewhere(
        self, stub: Stub, arrived: Arrived, *, crashes: int, left: float
    ) -> Letter | None:
        """The copy by which a message goes on, if its place is not here."""
        if left > 0:
            return copies.of_early(self._names, arrived, left)
        is_suspect = stub.queue == self._names.suspects
        if self._is_ordered:
            return copies.of_late(self._names, arrived) if is_suspect else None
        if arrived.is_uncounted and not is_suspect:
            return copies.of_suspect(self._names, arrived, max(1, crashes))
        if crashes >= SUSPECT_CRASHES and not is_suspect:
            return copies.of_suspect(self._names, arrived, crashes)
        return None

    async def _send_on(self, moves: Sequence[Onward]) -> None:
        if not moves:
            return
        try:
            answers = await self._house.sender.send([move.letter for move in moves])
        except CallcastError:
            answers = [Fate.UNKNOWN] * len(moves)
        ended = [
            (move, answer is Fate.CONFIRMED) for move, answer in zip(moves, answers, strict=True)
        ]
        self._mouth.dismiss([move.stub for move, is_safe in ended if is_safe], [])
        stayed = [move for move, is_safe in ended if not is_safe]
        if stayed:
            returns = [
                back(one.stub.queue, one.arrived.message, one.arrived.count) for one in stayed
            ]
            await self._house.forgive_if_possible(records(returns))
            await self._house.nap(PAUSE)
            self._mouth.dismiss([], [one.stub for one in stayed])
