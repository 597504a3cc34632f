"""Pace: how many deliveries a worker may have at once; more than it has slots while they fly by."""

from __future__ import annotations

QUICK = 0.02
"""Seconds within which all the room there is goes through handlers that are quick."""
ROOM_FACTOR = 4
"""At most so many deliveries for each slot: what waits behind a slow one is bounded."""


class Pace:
    """Room for deliveries.

    | event                                                    | room                            |
    |----------------------------------------------------------|---------------------------------|
    | as many as there is room for were handled within 20 ms   | twice as much, at most 4 x slots |
    | as many as there is room for were handled, in more time  | `slots`                         |
    | a fetch brought less than was asked for                  | `slots`                         |

    A fetch costs a commit or a round trip, whatever its size: where handlers hardly suspend, that
    is a good part of all. No more than `slots` handlers run at once, and the time that fetching
    takes is not counted: it says nothing about handlers.
    """

    def __init__(self, slots: int, now: float) -> None:
        self._slots = slots
        self._brought = 0  # and not known to be handled when the measure began
        self._took = 0.0  # of the measure so far
        self._since = now  # the part of it that has not been added
        self.room: int = slots

    def look(self, owned: int, now: float) -> None:
        """So many are still here."""
        self._took += now - self._since
        self._since = now
        if self._brought - owned >= self.room:
            is_quick = self._took < QUICK
            self.room = min(2 * self.room, ROOM_FACTOR * self._slots) if is_quick else self._slots
            self._brought, self._took = owned, 0.0

    def free(self, owned: int) -> int:
        """How many to ask for now. What is here beyond the slots is used up first."""
        return 0 if owned > self._slots else self.room - owned

    def fetched(self, count: int, asked: int, now: float) -> None:
        """A fetch for `asked` has brought `count`."""
        self._since = now
        self._brought += count
        if count < asked:
            self.room = self._slots
