"""Looking without consuming: lag, and pages of what is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from callcast.brokers.kafka import marks, shelved, wire
from callcast.brokers.kafka.desk import Place
from callcast.brokers.kafka.letters import Letters
from callcast.brokers.kafka.link import Link
from callcast.brokers.kafka.marks import Marks
from callcast.brokers.kafka.member import Member
from callcast.brokers.kafka.names import Names
from callcast.brokers.kafka.wire import Record
from callcast.core.errors import Misuse
from callcast.ports.broker import Glimpse, Lag, Part


class Reach(Struct, frozen=True):
    """From where to where the partitions of a source are not settled, as the server knows it."""

    marks: Mapping[Place, Marks]
    ends: Mapping[Place, int]


async def reach_of(link: Link, names: Names) -> Reach:
    """Ask for positions and ends of all topics that a source reads."""
    counts = await link.partitions([*names.consumed, names.dead])  # one question for all
    places = [(topic, number) for topic in names.consumed for number in range(counts.get(topic, 0))]
    main = [place for place in places if place[0] == names.topic]
    side = [place for place in places if place[0] != names.topic]
    committed = {
        **await link.committed(names.group, main),
        **await link.committed(names.side, side),
    }
    missing = [place for place in places if place not in committed]
    beginnings = await link.beginnings(missing)
    noted = {
        place: marks.decode(*committed[place])
        if place in committed
        else Marks(beginnings.get(place, 0))
        for place in places
    }
    return Reach(noted, await link.ends(places))


async def lag(link: Link, names: Names, letters: Letters, *, member: Member | None) -> Lag:
    """How far a group is behind; `member` is this process's own, whose desk knows more."""
    reach = await reach_of(link, names)
    await letters.refresh()
    now, wall = link.clock.now(), link.clock.wall()
    ready = leased = delayed = 0
    oldest = letters.oldest
    owned: dict[Place, int] = {}
    if member is not None:
        with member.lock:
            member.desk.tick(now)
            counts = shelved.counted(member.desk.windows.values(), now)
            owned = {
                place: max(window.position, window.head)
                for place, window in member.desk.windows.items()
            }
        ready, leased, delayed = counts.ready, counts.leased, counts.delayed
        oldest = min(oldest, counts.oldest)
    beyond = _beyond(reach, owned)
    starts = {place: at for place, (at, _, _) in beyond.items()}
    firsts = await link.read(starts, reach.ends, limit=1)
    for place, (at, waiting, out) in beyond.items():
        records = firsts.get(place)
        # Nothing is stored before the first record: markers of transactions, what was compacted.
        hole = (records[0].offset if records else reach.ends[place]) - at
        count = max(0, waiting - hole)
        oldest = min([oldest, *(record.time for record in records or ())])
        leased += out
        if place[0] in names.retries:
            delayed += count
        else:
            ready += count
    age = max(0.0, wall - oldest) if math.isfinite(oldest) else 0.0
    return Lag(
        ready,
        leased,
        delayed,
        letters.count,
        age if ready + leased + delayed + letters.count else 0.0,
    )


def _beyond(reach: Reach, owned: Mapping[Place, int]) -> dict[Place, tuple[int, int, int]]:
    """Of what this process has not read: the first that is not settled, how many wait, are out."""
    beyond: dict[Place, tuple[int, int, int]] = {}
    for place, noted in reach.marks.items():
        first = owned.get(place, noted.base)
        count, out = noted.unsettled(first, reach.ends.get(place, 0))
        if count and place not in owned:
            beyond[place] = (noted.first_unsettled(first), count - out, out)
        elif count:
            beyond[place] = (noted.first_unsettled(first), count, 0)
    return beyond


class Page(Struct, frozen=True):
    """What to look for: from where, until where, and how much."""

    starts: Mapping[Place, int]
    ends: Mapping[Place, int]
    limit: int
    topic: str
    """The contract's."""
    is_replay: bool = False
    """Positions are those of `Rewinds`, and tell when it was published."""


async def pages(
    link: Link, page: Page, look: Callable[[Record], tuple[bool, float | None, int]]
) -> list[Glimpse]:
    """The next wanted records of all partitions, oldest first.

    `look` says of a record whether it is wanted, when it is due, and its round.
    """
    at = dict(page.starts)
    places = sorted(at)
    while True:
        found = await link.read(at, page.ends, limit=page.limit)
        merged = sorted(
            (record for records in found.values() for record in records),
            key=lambda one: (one.time, one.topic, one.partition, one.offset),
        )
        glimpses: list[Glimpse] = []
        for record in merged:
            at[record.topic, record.partition] = record.offset + 1
            is_wanted, due, round_ = look(record)
            if is_wanted:
                message = wire.decode(record, page.topic)
                glimpses.append(
                    Glimpse(
                        message,
                        round=round_,
                        due=due,
                        position=write_position(places, at, is_replay=page.is_replay),
                        at=record.time if page.is_replay else None,
                    )
                )
            if len(glimpses) >= page.limit:
                break
        if glimpses or not merged:
            return glimpses


def write_position(places: Sequence[Place], at: Mapping[Place, int], *, is_replay: bool) -> str:
    """How far all partitions are read, as text."""
    if is_replay:
        return ",".join(f"{number}:{at[topic, number] - 1}" for topic, number in places)
    return ",".join(f"{topic}:{number}:{at[topic, number]}" for topic, number in places)


def read_position(text: str) -> dict[Place, int]:
    """The offsets of a position; empty for an empty one."""
    at: dict[Place, int] = {}
    for part in filter(None, text.split(",")):
        topic, number, offset = part.rsplit(":", 2)
        at[topic, int(number)] = int(offset)
    return at


async def browse(
    link: Link, names: Names, wanted: tuple[Part, str, int], *, member: Member | None
) -> list[Glimpse]:
    """The next of what is ready or delayed."""
    part, after, limit = wanted
    reach = await reach_of(link, names)
    starts = {place: noted.base for place, noted in reach.marks.items()}
    starts |= {place: at for place, at in read_position(after).items() if place in starts}
    page = Page(starts, reach.ends, limit, names.topic)

    def look(record: Record) -> tuple[bool, float | None, int]:
        place = (record.topic, record.partition)
        mark = reach.marks[place].at(record.offset)
        found = dict(record.headers)
        due = mark.due or wire.due_of(found) or None
        round_ = mark.round or wire.round_of(found)
        is_out = mark.is_settled
        is_delayed = due is not None and due > link.clock.wall()
        if member is not None:
            with member.lock:
                window = member.desk.windows.get(place)
                if window is not None and record.offset < window.position:
                    item = window.open.get(record.offset)
                    if item is None or item.token:
                        is_out = True
                    else:
                        due, round_ = item.due_wall or None, item.round
                        is_delayed = shelved.is_delayed(item, link.clock.now())
        return not is_out and is_delayed is (part is Part.DELAYED), due, round_

    return await pages(link, page, look)


class Span(Struct, frozen=True):
    """Which of the kept messages of a topic: from when until when, behind and up to a position."""

    topic: str
    since: float
    until: float | None
    after: str
    last: str
    limit: int


async def read(link: Link, span: Span) -> list[Glimpse]:
    """Kept messages, oldest first."""
    topic, since, until = span.topic, span.since, span.until
    after, last = offsets_of(topic, span.after), offsets_of(topic, span.last)
    counts = await link.partitions([topic], anew=True)
    places = [(topic, number) for number in range(counts.get(topic, 0))]
    for named in (after, last):
        places = [place for place in places if not named or place in named]
    ends = dict(await link.ends(places))
    starts = dict(await link.beginnings(places))
    if since > 0:
        found = await link.offsets_at(places, since)
        starts = {
            place: max(starts[place], at) if at >= 0 else ends[place] for place, at in found.items()
        }
    for place in places:
        starts[place] = max(starts[place], after.get(place, -1) + 1)
        ends[place] = min(ends[place], last.get(place, ends[place]) + 1)

    def look(record: Record) -> tuple[bool, float | None, int]:
        return since <= record.time and (until is None or record.time < until), None, 0

    return await pages(link, Page(starts, ends, span.limit, topic, is_replay=True), look)


def offsets_of(topic: str, position: str) -> dict[Place, int]:
    """The offsets of a position in a topic; raises `Misuse` for a text that is none."""
    offsets: dict[Place, int] = {}
    for part in filter(None, position.split(",")):
        number, _, offset = part.strip().partition(":")
        if not (number.isdecimal() and offset.removeprefix("-").isdecimal()):
            raise Misuse(
                f"position {position!r} is none: on Kafka it is partition:offset, several"
                " separated by commas, such as 0:1200,1:900"
            )
        offsets[topic, int(number)] = int(offset)
    return offsets
