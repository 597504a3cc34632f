"""The lease by which one relay at a time serves a bus's outbox: told the time."""

from __future__ import annotations


class LaneLease:
    """What this relay knows of its lane, on its own monotonic clock.

    | state  | `is_mine`                      | `took`, `renewed` | `lost`, `left` |
    |--------|--------------------------------|-------------------|----------------|
    | none   | no                             | -> held           | -              |
    | held   | until `ttl` - `margin`         | from then again   | -> none        |

    The age counts from before the database was asked, so that it never looks younger than it is
    there: a relay that was stopped stops by itself, whatever else it does not know. What it marks
    is fenced by the epoch besides.
    """

    def __init__(self, ttl: float, margin: float) -> None:
        self._ttl = ttl
        self._margin = margin
        self._since = 0.0
        self._epoch: int | None = None

    @property
    def epoch(self) -> int | None:
        """The epoch under which the lane was taken last, or None."""
        return self._epoch

    def is_mine(self, now: float) -> bool:
        """Whether rows may be handed out."""
        return self._epoch is not None and now < self._since + self._ttl - self._margin

    def is_due(self, now: float) -> bool:
        """Whether it is time to renew: a third of it is over."""
        return self._epoch is not None and now >= self._since + self._ttl / 3

    def took(self, epoch: int, since: float) -> None:
        """The lane was taken; the database was asked at `since`."""
        self._epoch = epoch
        self._since = since

    def renewed(self, since: float) -> None:
        """The lease was extended; the database was asked at `since`."""
        self._since = since

    def lost(self) -> None:
        """Somebody else has the lane, or it was given back."""
        self._epoch = None
