"""Dead letters: what they say, which are wanted, and how they are sent again."""

from __future__ import annotations

import operator
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from callcast.cli.failure import refusal_of
from callcast.core.errors import (
    CallcastError,
    CircuitOpen,
    Misuse,
    NotSent,
    Unavailable,
    Unpublished,
)
from callcast.core.message import Message, is_same
from callcast.core.outcome import DEAD_REASON, DONE
from callcast.policies.notes import FIRST_FAILED_AT
from callcast.ports.broker import (
    Broker,
    Browses,
    Consumer,
    Delivery,
    Part,
    Source,
    Unsettled,
    need,
)
from callcast.ports.clock import Clock
from callcast.telemetry.names import REDRIVE_COUNT

PAGE = 100
"""Letters looked at in one go."""
LEASE = 60.0
"""Seconds for which a redrive holds the letters in its hands; renewed at a third."""

FAILURES_MAX = 3
"""Of the broker, in a row: more letters would only wait as long each, and fail."""

REDRIVEN_BY = "callcast-redriven-by"

_NOTES = (
    DEAD_REASON,
    "callcast-source",
    "callcast-group",
    "callcast-handler",
    "callcast-attempts",
    "callcast-last-failed-at",
    "callcast-error-type",
    "callcast-error-message",
    "callcast-error-stack",
    "callcast-host",
    "callcast-version",
)
"""Headers that tell of the last failure; a redriven message starts without them."""


class Letter(Struct, frozen=True):
    """A dead letter, by the fields that commands print and filters compare."""

    id: str
    type: str
    topic: str
    group: str
    key: str | None
    sender: str
    origin: str
    """Where it failed: the topic; a queue or topic of others, of a letter that they wrote."""
    reason: str
    error_type: str
    error_message: str
    attempts: int
    handler: str
    first_failed_at: str
    last_failed_at: str
    redriven: int
    """How often it was redriven before."""
    size_bytes: int
    correlation_id: str = ""
    """What `callcast trace` finds it by."""
    superseded: bool | None = None
    """Its effect is there already, another copy was handled; None where that cannot be known."""


FIELDS = tuple(name for name in Letter.__struct_fields__ if name != "superseded")


def letter_of(source: Source, message: Message) -> Letter:
    """Read the headers of a dead letter; one that somebody else wrote may lack them."""
    header = message.headers.get
    return Letter(
        message.id,
        message.type,
        message.topic,
        source.group,
        message.key,
        message.source,
        header("callcast-source", ""),
        header(DEAD_REASON, ""),
        header("callcast-error-type", ""),
        header("callcast-error-message", ""),
        _count(header("callcast-attempts")),
        header("callcast-handler", ""),
        header(FIRST_FAILED_AT, ""),
        header("callcast-last-failed-at", ""),
        _count(header(REDRIVE_COUNT)),
        len(message.body),
        correlation_id=message.correlation_id or message.id,
    )


def redriven(message: Message, group: str, by: str) -> Message:
    """The message as it goes back to the group that failed: same id, same bytes, a higher count.

    Its expiry goes: an expired letter would only die again, and its operator wants it handled.
    """
    headers = {name: text for name, text in message.headers.items() if name not in _NOTES}
    headers[REDRIVE_COUNT] = str(_count(headers.get(REDRIVE_COUNT)) + 1)
    headers[REDRIVEN_BY] = by
    return replace(message, group=group, headers=headers, expires=None, deliver_at=None)


def _count(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


@dataclass(frozen=True, slots=True)
class Filter:
    """``FIELD=VALUE`` (is), ``FIELD!=VALUE`` (is not) or ``FIELD~TEXT`` (contains)."""

    field: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read one filter; raises `Misuse` naming the fields there are."""
        for sign in ("!=", "~", "="):
            field, found, value = text.partition(sign)
            if found and field.isidentifier():
                if field not in FIELDS:
                    raise Misuse(f"filter {text!r}: fields are {', '.join(FIELDS)}")
                return cls(field, sign, value)
        raise Misuse(f"filter {text!r}: write FIELD=VALUE, FIELD!=VALUE or FIELD~TEXT")

    def __call__(self, letter: Letter) -> bool:
        """Whether this letter is wanted."""
        return _SIGNS[self.sign](str(getattr(letter, self.field)), self.value)


_SIGNS: Mapping[str, Callable[[str, str], bool]] = MappingProxyType(
    {"=": operator.eq, "!=": operator.ne, "~": operator.contains}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which letters a command is about; everything when nothing is said."""

    ids: Collection[str] = ()
    group: str | None = None
    filters: Sequence[Filter] = ()

    def __call__(self, letter: Letter) -> bool:
        """Whether this letter is wanted."""
        return (
            (not self.ids or letter.id in self.ids)
            and (self.group is None or letter.group == self.group)
            and all(fits(letter) for fits in self.filters)
        )


async def sources_of(broker: Broker, group: str | None = None) -> Sequence[Source]:
    """All sources there are, or those of one group; by name."""
    sources = await need(broker, Browses).sources()
    return sorted((s for s in sources if group is None or s.group == group), key=str)


async def browse(broker: Broker, wanted: Wanted) -> AsyncIterator[tuple[Letter, Message]]:
    """All wanted letters, oldest first per source; nothing is consumed or counted."""
    for source in await sources_of(broker, wanted.group):
        after = ""
        while page := await need(broker, Browses).browse(
            source, part=Part.DEAD, after=after, limit=PAGE
        ):
            for glimpse in page:
                letter = letter_of(source, glimpse.message)
                if wanted(letter):
                    yield letter, glimpse.message
            after = page[-1].position


class Redriven(Struct, frozen=True):
    """What became of one letter."""

    id: str
    topic: str
    group: str
    error: str = ""


class Redrive:
    """Sends wanted letters back to the group that failed, at most `rate` a second.

    Each is published first and taken from the dead letters then: killed between the two, it is in
    both places under the same id, and the inbox removes the second. What dies again while this
    runs is left alone: a letter is redriven once.

    | a letter was not sent because of  | then                                                   |
    |-----------------------------------|--------------------------------------------------------|
    | a right that this user lacks      | none is sent: `stopped` says which, all stay           |
    | itself (too large, say)           | it stays where it is, and the next one is sent         |
    | the broker, `FAILURES_MAX` in a row | the circuit opens: `stopped` says why, the rest stays |

    A broker that can neither hand over letters nor take them away stops it at once.
    """

    def __init__(
        self, broker: Broker, wanted: Wanted, *, clock: Clock, by: str, rate: float = 0.0
    ) -> None:
        self._broker = broker
        self._wanted = wanted
        self._clock = clock
        self._by = by
        self._gap = 1.0 / rate if rate else 0.0
        self._next = 0.0  # when the next letter may go, on the clock's now()
        self._failures = 0  # of the broker, in a row
        self.stopped: CallcastError | None = None
        """Why it stopped before its end: `CircuitOpen`, or what the broker said."""

    async def __call__(self) -> AsyncGenerator[Redriven]:
        """Redrive; one record per letter as it is done or has failed."""
        for source in await sources_of(self._broker, self._wanted.group):
            if (await self._broker.lag(source)).dead:
                async with aclosing(self._until_stopped(source)) as results:
                    async for result in results:
                        yield result
            if self.stopped is not None:
                break

    async def left(self) -> int | None:
        """How many wanted letters are there; None where the broker does not say."""
        try:
            return sum([1 async for _ in browse(self._broker, self._wanted)])
        except CallcastError:
            return None

    async def _until_stopped(self, source: Source) -> AsyncGenerator[Redriven]:
        try:
            async with aclosing(self._drain(source)) as results:
                async for result in results:
                    yield result
        except (Unavailable, Unsettled) as error:
            self.stopped = error

    async def _drain(self, source: Source) -> AsyncGenerator[Redriven]:
        consumer = await self._broker.consume(source, part=Part.DEAD, lease=LEASE, prefetch=PAGE)
        hand = Hand(consumer, self._clock)
        try:
            while batch := await consumer.fetch(PAGE, 0.0):
                for delivery in await hand.take(batch):
                    if not self._wanted(letter_of(source, delivery.message)):
                        continue
                    await self._pace()
                    hand.renew()
                    result = await self._send(source, delivery.message)
                    if not result.error:
                        await hand.done(delivery)
                    yield result
                    if self.stopped is not None:
                        return
        finally:
            await consumer.close()

    async def _send(self, source: Source, message: Message) -> Redriven:
        try:
            await self._broker.publish([redriven(message, source.group, self._by)])
        except CallcastError as error:
            self._count(error)
            return Redriven(message.id, source.topic, source.group, str(error))
        self._failures = 0
        return Redriven(message.id, source.topic, source.group)

    def _count(self, error: CallcastError) -> None:
        """Count a failure of the broker; the circuit opens at the last one."""
        refusal = refusal_of(error)
        if refusal is not None or isinstance(error, CircuitOpen):
            self.stopped = refusal or error
        elif is_of_broker(error):
            self._failures += 1
            if self._failures >= FAILURES_MAX:
                self.stopped = CircuitOpen(
                    f"the circuit of the broker is open: {self._failures} letters in a row were"
                    f" not sent, the last one because {error}",
                    retry_after=0.0,
                )
        else:
            self._failures = 0

    async def _pace(self) -> None:
        now = self._clock.now()
        if self._next > now:
            await self._clock.sleep(self._next - now)
        self._next = max(now, self._next) + self._gap


def is_of_broker(error: CallcastError) -> bool:
    """Whether the broker failed, and not this message alone was refused."""
    if isinstance(error, Unpublished):
        return any(one is not None and is_of_broker(one) for one in error.errors)
    return not isinstance(error, Misuse) and (
        not isinstance(error, NotSent) or error.__cause__ is not None
    )


class Hand:
    """What a redrive has taken. It stays there until the end: given back, it would come again.

    Of a message that died several times some brokers keep as many letters: once one is sent, its
    copies go with it. One that died again after that is none of them.
    """

    def __init__(self, consumer: Consumer, clock: Clock) -> None:
        self._consumer = consumer
        self._clock = clock
        self._held: dict[tuple[str, str], list[Delivery]] = {}  # by sender and id, all seen
        self._sent: dict[tuple[str, str], Message] = {}
        self._renewed = clock.now()

    async def take(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        """Hold all of these; the ones that were not seen before."""
        fresh: list[Delivery] = []
        for delivery in batch:
            if _name(delivery) not in self._held:
                fresh.append(delivery)
            self._held.setdefault(_name(delivery), []).append(delivery)
            await self._drop_copies(delivery)
        return fresh

    async def done(self, delivery: Delivery) -> None:
        """It was sent: take it away, with its copies."""
        self._sent[_name(delivery)] = delivery.message
        await self._drop_copies(delivery)

    def renew(self) -> None:
        """Extend the leases, when it is time."""
        if self._clock.now() - self._renewed > LEASE / 3:
            self._consumer.renew([one for held in self._held.values() for one in held])
            self._renewed = self._clock.now()

    async def _drop_copies(self, delivery: Delivery) -> None:
        name = _name(delivery)
        sent = self._sent.get(name)
        if sent is None:
            return
        held = self._held[name]
        copies = [one for one in held if _is_copy(one.message, sent)]
        if copies:
            await self._consumer.settle([(one, DONE) for one in copies])
            self._held[name] = [one for one in held if one not in copies]


def _name(delivery: Delivery) -> tuple[str, str]:
    return delivery.message.source, delivery.message.id


def _is_copy(message: Message, sent: Message) -> bool:
    """Whether this letter is one of the sent one, and none of what became of that."""
    counts = [_count(each.headers.get(REDRIVE_COUNT)) for each in (message, sent)]
    return is_same(message, sent) and counts[0] <= counts[1]


def record_of(letter: Letter) -> dict[str, object]:
    """All fields, for JSON and tables."""
    return msgspec.structs.asdict(letter)
