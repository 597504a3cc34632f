"""Lanes: of an ordered source, one key runs one at a time and in order inside this worker."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from callcast.ports.broker import Delivery


class Place(enum.Enum):
    """Where a delivery goes that has just arrived."""

    RUN = "run"
    WAIT = "wait"
    BACK = "back"
    """To the broker, uncounted; its lane is shut until that is settled."""


@dataclass(slots=True)
class _Lane:
    """One key with something out; a free key has no lane."""

    is_running: bool = True
    waiting: deque[Delivery] = field(default_factory=deque[Delivery])
    away: set[Delivery] = field(default_factory=set[Delivery])
    """Given back and not settled yet: while there are any, the lane is shut."""
    known: set[str] = field(default_factory=set[str])
    """Ids given back: seen again, they were handed out after that, so they may run."""
    is_ajar: bool = False
    """All is settled, but a fetch that began before that has not returned yet."""


class Lanes:
    """One lane per key that has something out.

    | the key is | arrives                            | ended, goes on     | ended, given back          | settled                        | fetched |
    |------------|------------------------------------|--------------------|----------------------------|--------------------------------|---------|
    | free       | runs: busy                         | -                  | -                          | -                              | -       |
    | busy       | waits behind                       | next runs, or free | with those behind it: shut | -                              | -       |
    | shut       | waits                              | stays shut         | with those behind it       | known: runs: busy; else back: shut; nothing waits: ajar | - |
    | ajar       | known: runs: busy; else back: shut | stays ajar         | shut                       | -                              | free    |

    Given back (`Later`, `Release`, a parked `Dead`) means that the broker hands the key out again,
    from the first message that is not finished. Until it has settled that, and until a fetch that
    was under way at that moment has returned, what arrives of the key may have been handed out
    before and would overtake: it goes back too. A delivery whose id was given back and which is
    here again was handed out afterwards: it shows that the broker has caught up. A key can be shut
    or ajar though its head still runs, after `withdraw`; then what would run waits behind it.

    Messages without a key are not laned: do not hand them in.
    """  # noqa: E501 - a table

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}  # changed by the worker's own calls only
        self._spare: list[_Lane] = []  # free ones: making one takes longer than all the rest
        self._ajar: set[str] = set()  # the keys that are, so that `fetched` need not look for them
        self._away = 0

    @property
    def is_any_shut(self) -> bool:
        """Whether any settled delivery is of interest."""
        return self._away > 0

    def arrive(self, delivery: Delivery) -> Place:
        """Take in a delivery, in the order in which the broker handed it over."""
        key = _key(delivery)
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = self._spare.pop() if self._spare else _Lane()
            return Place.RUN
        if lane.is_ajar:
            lane.is_ajar = False
            if delivery.message.id not in lane.known:
                self._send(lane, [delivery])
                return Place.BACK
            if not lane.is_running:
                lane.is_running = True
                return Place.RUN
        lane.waiting.append(delivery)
        return Place.WAIT

    def go_on(self, delivery: Delivery) -> Delivery | None:
        """`delivery` ended and its key goes on; the next of the key, which runs now."""
        key = _key(delivery)
        lane = self._lanes[key]
        lane.is_running = False
        if not lane.away:
            return self._next(key, lane)
        return None

    def give_back(self, delivery: Delivery) -> Sequence[Delivery]:
        """`delivery` ended and goes back; those behind it, to go back in the same settle."""
        lane = self._lanes[_key(delivery)]
        lane.is_running = False
        behind = tuple(lane.waiting)
        lane.waiting.clear()
        lane.known.clear()  # what was given back earlier comes after this one
        self._send(lane, [delivery, *behind])
        return behind

    def withdraw(self) -> Sequence[Delivery]:
        """Take out all that wait behind what runs, to go back; what runs goes on running."""
        taken: list[Delivery] = []
        for lane in self._lanes.values():
            if lane.is_running and lane.waiting:
                taken += lane.waiting
                lane.known.clear()
                self._send(lane, lane.waiting)
                lane.waiting.clear()
        return taken

    def settled(self, delivery: Delivery, *, is_fetching: bool) -> Onward | None:
        """The verdict on `delivery` was carried out, or its lease was lost.

        What may happen now to a lane that was shut; None when nothing may. `is_fetching`: a fetch
        is under way.
        """
        key = _key(delivery)
        lane = self._lanes.get(key)
        if lane is None or delivery not in lane.away:
            return None
        lane.away.discard(delivery)
        self._away -= 1
        if lane.away:
            return None
        stale: list[Delivery] = []
        while lane.waiting and lane.waiting[0].message.id not in lane.known:
            stale.append(lane.waiting.popleft())
        if stale:
            self._send(lane, stale)
            return Onward(None, stale)
        if is_fetching and not lane.waiting:
            lane.is_ajar = True
            self._ajar.add(key)
        following = None if lane.is_running else self._next(key, lane)
        return None if following is None else Onward(following, ())

    def fetched(self) -> None:
        """The fetch that was under way has returned, and what it brought has arrived."""
        for key in self._ajar:
            lane = self._lanes.get(key)
            if lane is not None and lane.is_ajar:
                lane.is_ajar = False
                if not lane.is_running:
                    self._close(key, lane)
        self._ajar.clear()

    def _next(self, key: str, lane: _Lane) -> Delivery | None:
        if lane.waiting:
            lane.is_running = True
            return lane.waiting.popleft()
        if not lane.is_ajar:
            self._close(key, lane)
        return None

    def _close(self, key: str, lane: _Lane) -> None:
        """Nothing of the key is out any more; the lane is as good as new."""
        del self._lanes[key]
        lane.is_running = True
        lane.known.clear()
        self._spare.append(lane)

    def _send(self, lane: _Lane, deliveries: Iterable[Delivery]) -> None:
        before = len(lane.away)
        lane.away.update(deliveries)
        lane.known.update(delivery.message.id for delivery in deliveries)
        self._away += len(lane.away) - before
        lane.is_ajar = False


@dataclass(frozen=True, slots=True)
class Onward:
    """How a lane goes on whose way back is settled."""

    run: Delivery | None
    back: Sequence[Delivery]


def _key(delivery: Delivery) -> str:
    key = delivery.message.key
    if key is None:
        raise ValueError("a message without a key has no lane")
    return key
