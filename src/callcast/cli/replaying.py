"""Handing one group again what a topic has kept of a window."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from callcast.cli.failure import refusal_of
from callcast.core.errors import CallcastError, Misuse, Unpublished
from callcast.core.message import Message
from callcast.ports.broker import Broker, Glimpse, Rewinds, need
from callcast.ports.clock import Clock

PAGE = 100
"""Messages read and published in one go."""

REPLAYED_BY = "callcast-replayed-by"


class Window(Struct, frozen=True):
    """What of a topic: times on the wall clock, positions of the broker's own."""

    topic: str
    since: float
    until: float
    """Always an end: what is published while a replay runs is not part of it."""
    after: str = ""
    last: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How it is replayed. Without `new_id` the ids stay, and an inbox drops what it has handled."""

    group: str
    by: str
    rate: float = 0.0
    """At most so many a second; 0 is as fast as it goes."""
    new_id: Callable[[], str] | None = None


def replayed(message: Message, terms: Terms) -> Message:
    """The message as it goes to that group alone: the same bytes, marked as a replay.

    Its expiry goes, and the time it was scheduled for: both were of its first life.
    """
    headers = {**message.headers, REPLAYED_BY: terms.by}
    again = replace(message, group=terms.group, headers=headers, expires=None, deliver_at=None)
    if terms.new_id is None:
        return again
    return replace(again, id=terms.new_id(), causation_id=message.id)


async def pages(broker: Broker, window: Window) -> AsyncGenerator[Sequence[Glimpse]]:
    """All that is kept of a window, page by page; reading consumes nothing."""
    log = need(broker, Rewinds)
    after = window.after
    while page := await log.read(
        window.topic,
        since=window.since,
        until=window.until,
        after=after,
        last=window.last,
        limit=PAGE,
    ):
        yield page
        after = page[-1].position


class Outcome(Struct, frozen=True):
    """How a replay went."""

    topic: str
    group: str
    replayed: int
    position: str
    """Of the last message that went; go on behind it."""
    error: str = ""


class Replay:
    """Publishes a window to one group.

    Order is kept: it stops at the first message that is not published. What its batch stored behind
    that one comes again, under its id, when a replay goes on behind `Outcome.position`.
    """

    def __init__(self, broker: Broker, window: Window, terms: Terms, *, clock: Clock) -> None:
        self._broker = broker
        self._window = window
        self._terms = terms
        self._clock = clock
        self._gap = 1.0 / terms.rate if terms.rate else 0.0
        self._next = 0.0  # when the next message may go, on the clock's now()
        self._count = 0
        self._position = window.after

    async def __call__(self, tell: Callable[[int], None]) -> Outcome:
        """Replay all, telling the count again and again; what stopped it is in the outcome."""
        error = ""
        try:
            async for page in pages(self._broker, self._window):
                for batch in [[one] for one in page] if self._gap else [page]:
                    await self._pace()
                    await self._publish(batch)
                    tell(self._count)
        except CallcastError as stopped:
            is_refused = isinstance(stopped, Misuse) or refusal_of(stopped) is not None
            if is_refused and not self._count:
                raise  # the question was wrong or may not be asked, nothing has begun
            error = str(stopped)
        return Outcome(self._window.topic, self._terms.group, self._count, self._position, error)

    async def _publish(self, batch: Sequence[Glimpse]) -> None:
        messages = [replayed(glimpse.message, self._terms) for glimpse in batch]
        try:
            await self._broker.publish(messages)
        except Unpublished as error:
            failed = next(n for n, each in enumerate(error.errors) if each is not None)
            self._went(batch[:failed])
            first = error.errors[failed] or error
            raise first from first.__cause__ or error
        self._went(batch)

    def _went(self, batch: Sequence[Glimpse]) -> None:
        self._count += len(batch)
        if batch:
            self._position = batch[-1].position

    async def _pace(self) -> None:
        now = self._clock.now()
        if self._next > now:
            await self._clock.sleep(self._next - now)
        self._next = max(now, self._next) + self._gap
