"""The broker seam: nine methods, and outcomes as values."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

from msgspec import Struct

from callcast.core.amqp import Bound
from callcast.core.errors import CallcastError, Misuse
from callcast.core.message import Message
from callcast.core.outcome import Outcome


class Start(enum.Enum):
    """Where a new group begins."""

    NEW = "new"
    """With what is published after `ensure` made the group."""
    EARLIEST = "earliest"
    """With the oldest message that the broker still keeps."""


class Part(enum.Enum):
    """The three parts of a source."""

    READY = "ready"
    DELAYED = "delayed"
    DEAD = "dead"


class Source(Struct, frozen=True):
    """What `ensure` creates: a group's view of a topic. Durable facts only."""

    topic: str
    group: str
    ordered: bool = False
    lanes: int = 16
    start: Start = Start.NEW
    bound: Bound | None = None
    """A queue that others made, bound as it is; brokers without `Traits.binds` pass it by."""

    def __str__(self) -> str:
        return f"{self.topic}/{self.group}"


class Delivery(Struct, frozen=True, eq=False):
    """One message handed to one worker; looked up by identity."""

    message: Message
    round: int = 0
    """How many times it was `Later`."""
    crashes: int = 0
    """How many times it was handed out and no verdict came back; reset by `Later`."""
    handle: object = None
    """The adapter's own: whatever it needs to settle this delivery."""


class Lag(Struct, frozen=True):
    """How far a group is behind: counts, and an age in seconds."""

    ready: int = 0
    leased: int = 0
    delayed: int = 0
    dead: int = 0
    oldest: float = 0.0
    """Age in seconds of the oldest message that waits, is leased, delayed or dead; else 0."""
    paused: bool = False
    """Nothing is handed out until it is resumed (ability `Pauses`)."""


class Traits(Struct, frozen=True):
    """What is so about a broker without being a method; read by the suite and by `callcast doctor`.

    A trait never excuses loss, a hung poison message or a swallowed error.
    """

    name: str
    """`messaging.system` in traces: ``sqlite``, ``rabbitmq``, ..."""
    durable: bool = True
    """What was published survives the end of this process."""
    shared: bool = True
    """Several processes can open it at once."""
    durable_settle: bool = True
    """A settle that returned survives a crash at once."""
    knows_hearers: bool = True
    """It can tell that no group has ever subscribed."""
    body_max_bytes: int = 1_048_576
    keeps_unhandled: bool = True
    """A group that starts at the earliest hears what others left, also without a log."""
    log_kept: float = 0.0
    """Seconds for which messages can be replayed after all groups have passed them."""
    release_costs: str = "one write"
    """What a `Release` costs, in words."""
    binds: bool = False
    """`Event(amqp=)` is carried out: its exchange is not made and its queue is not either."""
    collapses_letters: bool = True
    """A message that dies again replaces its dead letter; else commands show the latest alone."""
    publishes_at_once: int = 1
    """Batches of publishes on their way side by side: more than one where the broker confirms each
    in its own time, so that one is encoded while it works on another."""


class Unsettled(CallcastError):
    """Some verdicts were not carried out; the others of the call are.

    `lost` is somebody else's now: forget it. `failed` is still ours: settle it again.
    """

    def __init__(
        self, lost: Sequence[Delivery] = (), failed: Sequence[Delivery] = (), why: str = ""
    ) -> None:
        super().__init__(
            f"{len(lost)} deliveries were lost to another worker (their lease had ended) and"
            f" {len(failed)} could not be settled{': ' if why else ''}{why}"
        )
        self.lost: tuple[Delivery, ...] = tuple(lost)
        self.failed: tuple[Delivery, ...] = tuple(failed)


class Consumer(Protocol):
    """One worker's hold on a source."""

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Hand over up to `limit` deliveries, counted durably before this returns.

        Waits up to `wait` seconds for the first one only; empty when none came. Cancelled, it
        hands over nothing: what it had leased by then is released by the consumer. Closed while
        it waits, it returns an empty sequence. Raises `Unavailable` when the broker is away.
        """
        ...

    async def settle(self, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Carry out all verdicts; raises `Unsettled`, the rest being settled."""
        ...

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Extend the leases of these by a full lease from now. Plain and thread-safe."""
        ...

    async def close(self) -> None:
        """Release what is still held, uncounted, and end. Idempotent; wakes a waiting `fetch`."""
        ...


class Feed(Protocol):
    """What a worker needs of where its work comes from; every `Broker` is one, so is an outbox."""

    async def consume(
        self,
        source: Source,
        *,
        part: Part = Part.READY,
        lease: float = 60.0,
        prefetch: int = 250,
    ) -> Consumer:
        """Open a consumer of one part of a source; `lease` in seconds."""
        ...

    async def lag(self, source: Source) -> Lag:
        """How far this group is behind."""
        ...


class Broker(Feed, Protocol):
    """Where messages wait."""

    @property
    def traits(self) -> Traits:
        """What is so about this broker."""
        ...

    async def ensure(self, topics: Sequence[str], sources: Sequence[Source]) -> None:
        """Make topics and sources exist. Idempotent; never destroys; names every difference."""
        ...

    async def publish(self, messages: Sequence[Message]) -> None:
        """Make all messages durable, in their order per key; raises `Unpublished`."""
        ...

    async def close(self) -> None:
        """Close all consumers, then the broker. Idempotent; a later call raises `NotSent`."""
        ...


# Abilities: rarely supported, therefore protocols of their own.


class Glimpse(Struct, frozen=True):
    """A message seen without consuming it."""

    message: Message
    round: int = 0
    crashes: int = 0
    due: float | None = None
    """DELAYED: the wall-clock time at which it becomes ready."""
    position: str = ""
    """Pass it as `after` to go on behind this one; text of the broker's own, see `Rewinds`."""
    at: float | None = None
    """`Rewinds`: when it was published, wall clock of the broker; else None."""


@runtime_checkable
class Browses(Protocol):
    """Can be looked at without consuming or counting."""

    async def sources(self) -> Sequence[Source]:
        """All sources that there are."""
        ...

    async def browse(
        self, source: Source, *, part: Part = Part.READY, after: str = "", limit: int = 100
    ) -> Sequence[Glimpse]:
        """The next `limit` messages of a part, oldest first."""
        ...


class Difference(Struct, frozen=True):
    """One thing that is needed and is not there, or is there and is otherwise."""

    name: str
    """What it is about: a topic's name, or ``topic/group``."""
    detail: str
    """A sentence that names it, says how it is and what is wanted, and, where `ensure` cannot make
    it, what to do."""
    is_missing: bool
    """`ensure` makes it. What is there and is otherwise it refuses with `Misuse`."""

    def __str__(self) -> str:
        return self.detail


@runtime_checkable
class Inspects(Protocol):
    """Can name the difference between what is needed and what is there."""

    async def differences(
        self, topics: Sequence[str], sources: Sequence[Source]
    ) -> Sequence[Difference]:
        """All differences; empty when `ensure` would change nothing and refuse nothing.

        Looks only: what is missing stays so. A group whose auxiliary parts (dead letters, delays,
        lanes) are missing or otherwise is one `Difference` per part, named after the group.
        """
        ...


@runtime_checkable
class Parks(Protocol):
    """Can hold a key behind its dead letter (`Dead(park=True)`).

    Publishing the dead letter again with `group` set (a redrive) puts it before what was held.
    """

    async def unpark(self, source: Source, key: str) -> int:
        """Let a parked key go on without its dead letter (`dlq skip`); how many were held."""
        ...


@runtime_checkable
class Pauses(Protocol):
    """Can be paused at the broker: survives restarts and binds every worker within 5 s.

    A group is paused, not a worker: from 5 s after `pause` returned, no `fetch` of its READY part
    hands out anything, in any process, also in one that starts later; a consumer of the broker
    that was asked stops at once. What waits in a consumer's buffer is given back or held, and
    is not counted. What is out can be settled, what is published waits, delays run on, and dead
    letters stay within reach (`Part.DEAD`): a redrive and a replay wait with the rest. `Lag.paused`
    says so everywhere at once. Both are idempotent and raise `Misuse` for a group that is not
    there. `ensure` changes nothing about it; `retire` forgets it with the group.
    """

    async def pause(self, source: Source) -> None:
        """Hand out nothing more of this group. Durable on return."""
        ...

    async def resume(self, source: Source) -> None:
        """Go on: waiting fetches wake within 5 s. Durable on return."""
        ...


@runtime_checkable
class Retires(Protocol):
    """Can end a group for good."""

    async def retire(self, source: Source) -> None:
        """Forget this group with all that waits for it: ready, delayed and dead, and its pause.

        Idempotent: one that is not there is no error. Other groups of the topic lose nothing. Made
        anew it begins where a new group begins. Its workers are to be stopped before: where the
        broker knows of one in another process, and cannot end the group under it, this raises
        `Misuse` and changes nothing; elsewhere their fetches find nothing more or raise.
        """
        ...


@runtime_checkable
class Rewinds(Protocol):
    """Keeps what was consumed, and can be read again.

    Kept is what was published to a whole topic: a redrive or a replay to one group is not read
    again. For how long is the broker's matter (`Traits.log_kept`, or its own retention).

    A position is text of the broker's own (SQLite, memory, a RabbitMQ stream: a number; Kafka:
    ``partition:offset``, several separated by commas). `Glimpse.position` is one, and so is what
    an operator writes. A position that names some partitions only leaves the others out;
    `Glimpse.position` names all that are being read.
    """

    async def read(
        self,
        topic: str,
        *,
        since: float = 0.0,
        until: float | None = None,
        after: str = "",
        last: str = "",
        limit: int = 500,
    ) -> Sequence[Glimpse]:
        """Kept messages published in ``since <= time < until`` (wall clock of the broker).

        `after` and `last`: only those behind the one position, and up to and with the other. The
        oldest come first, those of one key (and one partition) in their order; at most `limit` of
        them, and none when there is nothing more in this window now. Consumes and counts nothing.
        An unknown topic has nothing. Raises `Misuse`, with what to do, when nothing is kept or
        for a position that is none.
        """
        ...


@runtime_checkable
class Transacts(Protocol):
    """Can settle and publish as one."""

    async def transact(
        self,
        consumer: Consumer,
        verdicts: Sequence[tuple[Delivery, Outcome]],
        messages: Sequence[Message],
    ) -> None:
        """Both or neither."""
        ...


@runtime_checkable
class Schedules(Protocol):
    """Delays a published message natively: honours `Message.deliver_at`."""

    @property
    def delay_max(self) -> float:
        """The longest delay in seconds."""
        ...


Ability = TypeVar("Ability")

_REMEDIES = {
    "Browses": "use a broker that can be browsed (sqlite, memory)",
    "Inspects": "start the service: `ensure` names every difference",
    "Parks": "use a SQL broker, or Event(on_dead='skip')",
    "Pauses": "stop the workers instead",
    "Retires": "stop the workers and delete what the group has at the broker with its own tools",
    "Rewinds": "use a broker that keeps its log (sqlite:///...?retain=SECONDS)",
    "Schedules": "publish without a delay, or use a broker that schedules (sqlite, memory)",
}


def need(broker: Broker, ability: type[Ability]) -> Ability:
    """Return the broker as one with that ability, or raise `Misuse` naming broker and remedy."""
    if isinstance(broker, ability):
        return broker
    remedy = _REMEDIES.get(ability.__name__, "use another broker")
    raise Misuse(f"the {broker.traits.name} broker lacks the ability {ability.__name__}: {remedy}")
