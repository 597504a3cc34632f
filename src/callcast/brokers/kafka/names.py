"""Which topics, groups and partitions a source has on Kafka.

Of a source ``orders.placed/billing``:

| name                                 | what                                                     |
|--------------------------------------|----------------------------------------------------------|
| ``orders.placed``                    | the topic: partitioned by key                            |
| ``orders.placed.billing``            | the consumer group of the topic                          |
| ``orders.placed.billing.side``       | the consumer group of redrives and retries: in one group |
|                                      | they would be balanced against the topic's partitions    |
| ``orders.placed.billing.redrive``    | what is for this group only: redrives and replays        |
| ``orders.placed.billing.retry.10s``  | `Later` by delay: ``10s 1m 10m 1h 1d``; unordered only   |
| ``orders.placed.billing.dead``       | its dead letters, compacted by source and id             |

Dots are parts of names, too, so that two sources may come to the same ones; `clashes` finds them.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from callcast.core.errors import Misuse
from callcast.core.names import checked_name
from callcast.ports.broker import Source

CONTROL = "callcast.control"
"""The compacted topic that holds which groups there are, and which are paused."""
TOPIC_MAX = 249
"""Characters of a topic's name, by Kafka's own limit."""
TIERS: tuple[tuple[str, float], ...] = (
    ("10s", 10.0),
    ("1m", 60.0),
    ("10m", 600.0),
    ("1h", 3_600.0),
    ("1d", 86_400.0),
)
"""Retry topics, and the longest delay in seconds that goes there; beyond the last it goes twice."""


class Names(Struct, frozen=True):
    """All names of one source."""

    topic: str
    group: str
    side: str
    redrive: str
    dead: str
    retries: tuple[str, ...]
    """By delay, in the order of `TIERS`; empty when the source is ordered."""

    @property
    def consumed(self) -> tuple[str, ...]:
        """The topics that its consumers read."""
        return (self.topic, *self.beside)

    @property
    def beside(self) -> tuple[str, ...]:
        """The topics of the group `side`."""
        return (self.redrive, *self.retries)

    def retry(self, left: float) -> str:
        """The retry topic of a message that is due in so many seconds."""
        for name, (_, longest) in zip(self.retries, TIERS, strict=True):
            if left <= longest:
                return name
        return self.retries[-1]


def names_of(source: Source) -> Names:
    """The names of a source; raises `Misuse` for one that Kafka would not take."""
    topic = checked_name(source.topic, "topic")
    group = f"{topic}.{checked_name(source.group, 'group')}"
    names = Names(
        topic=topic,
        group=group,
        side=f"{group}.side",
        redrive=redrive_topic(topic, source.group),
        dead=f"{group}.dead",
        retries=() if source.ordered else tuple(f"{group}.retry.{label}" for label, _ in TIERS),
    )
    longest = max(map(len, (names.redrive, f"{group}.retry.10s")))
    if longest > TOPIC_MAX:
        raise Misuse(
            f"source {source}: its topics would have names of {longest} characters, and Kafka"
            f" allows {TOPIC_MAX}; shorten the contract's or the group's name"
        )
    return names


def redrive_topic(topic: str, group: str) -> str:
    """Where a message goes that is for one group only."""
    return f"{topic}.{group}.redrive"


def clashes(topics: Iterable[str], sources: Iterable[Source]) -> list[str]:
    """Which of these would share what must be one's own, a sentence each."""
    groups: dict[str, Source] = {}
    parts: dict[str, Source] = {}
    mains = dict.fromkeys(topics)
    found: list[str] = []
    for source in sources:
        names = names_of(source)
        for name in (names.group, names.side):
            other = groups.setdefault(name, source)
            if str(other) != str(source):
                found.append(
                    f"group {source} and group {other} would both be {name!r} on Kafka: give one"
                    " of them another name"
                )
                break
        parts.update(dict.fromkeys((*names.beside, names.dead), source))
        mains[source.topic] = None
    for topic in mains:
        if topic == CONTROL:
            found.append(f"topic {topic!r} is where callcast keeps its groups: use another name")
        elif topic in parts:
            found.append(
                f"topic {topic!r} is where group {parts[topic]} keeps what waits for it alone:"
                " give one of them another name"
            )
    return found
