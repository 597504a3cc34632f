"""What lies where in a vhost: names, routing keys and arguments of exchanges and queues.

| of topic ``orders.placed``, group ``billing`` | its name                                     |
|-----------------------------------------------|----------------------------------------------|
| its exchange, a fanout                        | ``orders.placed``                            |
| the ordered group's own, a direct exchange    | ``orders.placed/billing``                    |
| beside it, a fanout: keys that no lane knows  | ``orders.placed/billing/strays``             |
| where the group's messages wait               | ``orders.placed/billing``                    |
| the same, ordered: one of 16 lanes            | ``orders.placed/billing/7``                  |
| what has crashed twice                        | ``orders.placed/billing/suspects``           |
| dead letters                                  | ``orders.placed/billing/dead``               |
| a step of the ladder of delays                | ``orders.placed/billing/later/8``            |
| a message of it: the group is paused          | ``orders.placed/billing/paused``             |
| the stream that `Rewinds` reads               | ``orders.placed/log``                        |

Exchanges and queues are two spaces of names in AMQP. ``/`` is in no name of a contract or service,
so that no two queues here can have one name, and no two exchanges. Everything
derives from the contract alone: whoever publishes knows no handler, and two programs that would
declare one queue in two ways could not both start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from callcast.brokers.rabbitmq.ladder import STEPS
from callcast.core.amqp import KEYLESS, SHARES, share_of
from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.core.names import checked_name
from callcast.ports.broker import Source

Arguments: TypeAlias = Mapping[str, str | int | bool]

UNLIMITED = 1_000_000_000
"""Deliveries before the broker would drop a message by itself; -1 would drop at once on 3.10."""
LANES_MAX = len(SHARES)
"""A routing key is a sixteenth of the hashes of all keys; a lane has one of them, or several."""
EVERYTHING = "#"
"""What is bound with it gets all, whatever its routing key: a topic exchange reads it so, and a
fanout reads no keys."""
NAME_MAX_BYTES = 255
"""What AMQP allows a name to be."""
CATALOG = "callcast/catalog"
"""The stream that knows which groups there are: AMQP cannot list them."""
PARDONS = "callcast/pardons"
"""The stream of returns that were no crash."""

_QUORUM: dict[str, str | int | bool] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": UNLIMITED,
}


class Exchange(NamedTuple):
    """What an exchange is declared with."""

    name: str
    kind: Literal["fanout", "direct", "topic"]
    alternate: str = ""
    """The exchange that gets what no binding of this one takes."""


class Binding(NamedTuple):
    """By which exchange, and under which routing key, messages come."""

    exchange: str
    key: str = EVERYTHING


def routing_key(message: Message) -> str:
    """``all`` without a key, else which sixteenth of all keys its key is in: ``0`` to ``f``."""
    return share_of(message.key)


def check_source(source: Source) -> None:
    """Raise `Misuse` for a name or a number of lanes that cannot be."""
    checked_name(source.topic, "topic")
    checked_name(source.group, f"group of topic {source.topic!r}")
    lanes = source.lanes
    if source.ordered and (lanes & (lanes - 1) or not 1 <= lanes <= LANES_MAX):
        raise Misuse(
            f"group {source}: lanes={lanes} must be a power of two up to {LANES_MAX} on RabbitMQ"
        )
    if len(f"{source}/suspects") > NAME_MAX_BYTES:
        raise Misuse(f"group {source}: topic and group have over 240 characters together")


class Names:
    """The queues of one group, and the exchanges that an ordered one has of its own."""

    def __init__(self, source: Source) -> None:
        base = str(source)
        self.source: Source = source
        self.work: tuple[str, ...] = (
            tuple(f"{base}/{lane}" for lane in range(source.lanes)) if source.ordered else (base,)
        )
        if source.bound is not None:
            self.work = (source.bound.queue,)
        self.suspects: str = f"{base}/suspects"
        self.dead: str = f"{base}/dead"
        self.paused: str = f"{base}/paused"
        self.sorter: str = base
        """The exchange that gives an ordered group's messages to its lanes."""
        self.strays: str = f"{base}/strays"
        """The exchange of what the former has no lane for: strangers choose their own keys."""

    def later(self, step: int) -> str:
        """The queue in which a message waits for so many seconds."""
        return f"{self.source}/later/{step}"

    def dead_place(self, routing_key: str) -> tuple[str, str]:
        """Exchange and routing key of a dead letter that came by this routing key."""
        bound = self.source.bound
        if bound is not None and bound.dead_letter_exchange:
            return (bound.dead_letter_exchange, routing_key)
        return ("", self.dead)

    @property
    def own(self) -> Sequence[str]:
        """What `ensure` declares and `retire` deletes."""
        auxiliary = (self.suspects, self.dead, self.paused, *self.ladder)
        return auxiliary if self.source.bound is not None else (*self.work, *auxiliary)

    @property
    def all(self) -> Sequence[str]:
        """All queues that its messages may be in."""
        return self.own if self.source.bound is None else (*self.work, *self.own)

    @property
    def ladder(self) -> Sequence[str]:
        """The queues of all steps, the shortest first."""
        return [self.later(step) for step in STEPS]

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """What it has between the exchange of its topic and its queues: of an ordered one, two."""
        if not self.source.ordered or self.source.bound is not None:
            return ()
        return (Exchange(self.strays, "fanout"), Exchange(self.sorter, "direct", self.strays))

    def bindings(self, queue: str) -> Sequence[Binding]:
        """By what a queue gets what is published to its topic."""
        source = self.source
        if queue not in self.work or source.bound is not None:
            return ()
        if not source.ordered:
            return (Binding(source.topic),)
        lane = self.work.index(queue)
        shares = [Binding(self.sorter, share) for share in SHARES[lane :: source.lanes]]
        rest = (Binding(self.sorter, KEYLESS), Binding(self.strays)) if lane == 0 else ()
        return (*rest, *shares)

    def queue_of(self, message: Message) -> str:
        """Where a message for this group alone is put."""
        if not self.source.ordered or message.key is None:
            return self.work[0]
        return self.work[SHARES.index(routing_key(message)) % self.source.lanes]

    def arguments(self, queue: str) -> Arguments:
        """What a queue is declared with."""
        source = self.source
        if queue.startswith(f"{source}/later/"):
            return self._later_arguments(int(queue.rpartition("/")[2]))
        single = {"x-single-active-consumer": True} if self.is_single(queue) else {}
        return {**_QUORUM, **single}

    def is_single(self, queue: str) -> bool:
        """Whether one consumer at a time has all of it."""
        return queue == self.suspects or (self.source.ordered and queue in self.work)

    def _later_arguments(self, step: int) -> Arguments:
        # The plain strategy loses what expires while the work queue is missing; this one holds it.
        # An ordered group's late ones come by its suspects: its lanes would let them overtake.
        target = self.suspects if self.source.ordered else self.work[0]
        return {
            **_QUORUM,
            "x-message-ttl": step * 1_000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": target,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }


def log_name(topic: str) -> str:
    """The stream of what was published to a topic."""
    return f"{topic}/log"


def event_exchange(topic: str) -> Exchange:
    """The exchange of a topic, as it is made where there is none."""
    return Exchange(topic, "fanout")


def topic_exchange(topic: str) -> Exchange:
    """What serves as well, where somebody has made it."""
    return Exchange(topic, "topic")


def log_arguments(retain: float) -> Arguments:
    """A stream that keeps messages for so many seconds."""
    return {"x-queue-type": "stream", "x-max-age": f"{max(1, round(retain))}s"}


CATALOG_ARGUMENTS: Arguments = {
    "x-queue-type": "stream",
    "x-max-length-bytes": 4_000_000,
    "x-stream-max-segment-size-bytes": 400_000,
}
"""Read whole by whoever starts: half a second at most."""
PARDONS_ARGUMENTS: Arguments = {**CATALOG_ARGUMENTS, "x-max-age": "7D"}
