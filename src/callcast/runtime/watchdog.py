"""The watchdog of a consumer: has it gone silent while messages wait?"""

from __future__ import annotations

from callcast.ports.broker import Lag, Source


class Watchdog:
    """Told of progress and of the time.

    | state    | progress | no progress for `patience`, messages wait | rebuilt |
    |----------|----------|-------------------------------------------|---------|
    | well     | well     | suspicious: rebuild                       | -       |
    | rebuilt  | well     | suspicious: rebuild                       | rebuilt |

    Progress is a fetch that brought something, or a settle that was carried out. Not locked.
    """

    def __init__(self, source: Source, *, patience: float, now: float) -> None:
        self._source = source
        self._patience = patience
        self._latest = now
        self.is_well: bool = True

    def progress(self, now: float) -> None:
        """Something moved."""
        self._latest = now
        self.is_well = True

    def excuse(self, now: float) -> None:
        """Nothing can move now (paused, or a handler runs): patience begins anew."""
        self._latest = now

    def silence(self, now: float) -> float:
        """Seconds without progress, once they exceed the patience; else 0."""
        silence = now - self._latest
        return silence if silence >= self._patience else 0.0

    def is_stuck(self, lag: Lag) -> bool:
        """Whether messages wait that this consumer should have been given.

        Of an ordered source, ready messages may wait behind a key's head that is leased to
        somebody else or delayed: only when there is neither is it this consumer's fault.
        """
        if lag.ready == 0 or lag.paused:
            return False
        return not (self._source.ordered and (lag.leased or lag.delayed))

    def rebuilt(self, now: float) -> None:
        """A new consumer takes over; it is well as soon as something moves."""
        self._latest = now
        self.is_well = False
