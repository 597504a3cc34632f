"""Partitions that this member has been given while another still finishes what is out of them.

Kafka gives a partition to the next member as soon as the one before lets it go, and the driver
reads nothing at all until it does. So it lets go at once, with a word in the metadata of its commit
that it is not through (`marks`), and says so again and again; its heir begins behind the last.

| the word                              | the heir                                     |
|---------------------------------------|----------------------------------------------|
| is not there, or not any more         | begins at what is committed                  |
| is another one than at the last look  | waits on                                     |
| has been the same for `PATIENCE`      | begins: what is noted as out was a crash     |

Pure: told the time, in monotonic seconds. Two clocks are never compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from callcast.brokers.kafka.desk import Place
from callcast.brokers.kafka.window import SILENCE

Word: TypeAlias = tuple[int, int]
"""What is committed, and how often it was said that it is still being finished; 0 once it has."""

PATIENCE = SILENCE + 5.0
"""Seconds. The one before gives up that much earlier: the rest is for a word that is on its way."""
LOOK = 0.1
"""Seconds between two looks at what is committed."""


class Heirs:
    """The partitions that are waited for. Used in the member's thread only."""

    def __init__(self) -> None:
        self._heard: dict[Place, tuple[Word, float]] = {}  # the last, and since when
        self._look_at = 0.0

    def may_begin(self, place: Place, word: Word, now: float) -> bool:
        """Whether this partition can be begun, as it is committed now; else it is waited for."""
        heard, since = self._heard.get(place, (word, now))
        if heard != word:
            since = now
        if word[1] and now < since + PATIENCE:
            self._heard[place] = word, since
            return False
        self.forget([place])
        return True

    def forget(self, places: Iterable[Place]) -> None:
        """Wait for these no longer."""
        for place in places:
            self._heard.pop(place, None)

    def to_look_at(self, now: float) -> list[Place]:
        """What to ask about now; nothing most of the time."""
        if not self._heard or now < self._look_at:
            return []
        self._look_at = now + LOOK
        return list(self._heard)
