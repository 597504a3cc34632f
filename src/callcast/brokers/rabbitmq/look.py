"""What an operator sees: how far a group is behind, what waits, whether it is paused.

AMQP tells how many messages of a queue are ready, and nothing about those that are out: what is
leased is what this process holds. A message is looked at by taking it and giving it back; where
that could be taken for a crash it is pardoned first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct
from pika import BasicProperties, spec

from callcast.brokers.rabbitmq import foreign
from callcast.brokers.rabbitmq.confirms import Fate
from callcast.brokers.rabbitmq.desk import Held
from callcast.brokers.rabbitmq.faults import ChannelLost
from callcast.brokers.rabbitmq.house import House
from callcast.brokers.rabbitmq.intake import Intake
from callcast.brokers.rabbitmq.letters import Letter
from callcast.brokers.rabbitmq.names import Names
from callcast.brokers.rabbitmq.pardons import Return, back, records
from callcast.brokers.rabbitmq.port import Counts, Got, Port, close_quietly
from callcast.brokers.rabbitmq.wire import Arrived
from callcast.core.errors import Misuse, Unavailable
from callcast.core.message import Message
from callcast.ports.broker import Glimpse, Lag, Part, Source

SINGLE_WAIT = 1.0
"""Seconds for what is said to be ready."""
BROWSE_MAX = 10_000
"""Messages of a queue that one look goes through."""
BACK_LOOKS, BACK_PAUSE = 20, 0.01
"""How often, and with how many seconds between, it is asked whether what was looked at is back."""


class Page(Struct, frozen=True):
    """What to show."""

    source: Source
    part: Part
    after: str
    limit: int


class Local(NamedTuple):
    """What is in this process, of one group."""

    ready: int = 0
    leased: int = 0
    delayed: int = 0
    dead: int = 0


async def lag(house: House, source: Source, here: Mapping[Part, Intake]) -> Lag:
    """How far a group is behind. What moves meanwhile may be counted twice, never left out."""
    names = Names(await house.topology.find(source))
    before = _local(house, here)
    counts = await house.topology.counts(names.all)
    after = _local(house, here)
    local = Local(*map(max, before, after))
    ready, delayed, dead = _waiting(names, counts)
    oldest = await _oldest(house, names, counts)
    held = [one.published for intake in here.values() for one in intake.desk.held]
    oldest += [each for each in held if each]
    return Lag(
        ready=ready + local.ready,
        leased=local.leased,
        delayed=delayed + local.delayed,
        dead=dead + local.dead,
        oldest=max(0.0, house.clock.wall() - min(oldest)) if oldest else 0.0,
        paused=_ready(counts, names.paused) > 0,
    )


async def browse(house: House, page: Page, here: Mapping[Part, Intake]) -> Sequence[Glimpse]:
    """The messages of a part, from its beginning: what is in this process first."""
    names = Names(await house.topology.find(page.source))
    start = _position(page.after)
    wanted = min(BROWSE_MAX, start + page.limit)
    found = _glimpses_here(house, page.part, here)
    for queue in _queues(names, page.part):
        if len(found) < wanted or page.part is Part.DELAYED:
            most = BROWSE_MAX if page.part is Part.DELAYED else wanted - len(found)
            found += await _peek(house, names, queue, most=most)
    if page.part is Part.DELAYED:
        found.sort(key=lambda one: one.due or 0.0)
    return [
        Glimpse(one.message, one.round, one.crashes, one.due, str(number))
        for number, one in enumerate(found[:wanted], 1)
        if number > start
    ]


async def set_paused(house: House, source: Source, *, is_paused: bool) -> None:
    """Store it at the broker: a message in a queue of its own, or none."""
    names = Names(await house.topology.find(source))
    was = await house.is_paused(names)
    if is_paused and not was:
        properties = BasicProperties(delivery_mode=2)
        answers = await house.sender.send([Letter("", names.paused, "", properties, b"paused")])
        if answers != [Fate.CONFIRMED]:
            raise Unavailable(f"{source} was not paused: {answers[0]}")
    if was and not is_paused:
        await house.topology.each(
            [names.paused], lambda port, queue: port.purge(queue), f"resume {source}"
        )


def _local(house: House, here: Mapping[Part, Intake]) -> Local:
    now = house.clock.now()
    ready = leased = delayed = dead = 0
    for part, intake in here.items():
        with intake.lock:
            waiting, later = intake.desk.waiting(now)
            out, coming = intake.desk.leased, intake.coming
        if part is Part.DEAD:
            dead += len(waiting) + len(later) + out + coming
        else:
            ready, delayed, leased = (
                ready + len(waiting) + coming,
                delayed + len(later),
                leased + out,
            )
    return Local(ready, leased, delayed, dead)


def _ready(counts: Mapping[str, Counts], queue: str) -> int:
    return counts[queue].ready if queue in counts else 0


def _waiting(names: Names, counts: Mapping[str, Counts]) -> tuple[int, int, int]:
    ready = sum(_ready(counts, queue) for queue in names.work)
    delayed = sum(_ready(counts, queue) for queue in names.ladder)
    if names.source.ordered:
        delayed += _ready(counts, names.suspects)  # on their way from the ladder to their lanes
    else:
        ready += _ready(counts, names.suspects)
    return ready, delayed, _ready(counts, names.dead)


async def _oldest(house: House, names: Names, counts: Mapping[str, Counts]) -> list[float]:
    """When the heads of the queues that nobody works at were published, wall clock."""
    found: list[float] = []
    for queue, count in counts.items():
        # A queue with a consumer has its head with that consumer.
        if count.ready and not count.consumers and queue != names.paused:
            heads = await _peek(house, names, queue, most=1)
            found += [one.published for one in heads if one.published]
    return found


def _queues(names: Names, part: Part) -> Sequence[str]:
    if part is Part.DEAD:
        return (names.dead,)
    if part is Part.DELAYED:
        return names.ladder
    return (*names.work, names.suspects)


def _glimpses_here(house: House, part: Part, here: Mapping[Part, Intake]) -> list[Seen]:
    intake = here.get(Part.DEAD if part is Part.DEAD else Part.READY)
    if intake is None:
        return []
    now, wall = house.clock.now(), house.clock.wall()
    with intake.lock:
        ready, later = intake.desk.waiting(now)
    entries: list[Held] = later if part is Part.DELAYED else ready
    return [
        Seen(
            one.message,
            one.round,
            one.crashes,
            wall + one.due - now if part is Part.DELAYED else None,
            one.published,
        )
        for one in entries
    ]


async def _peek(house: House, names: Names, queue: str, *, most: int) -> list[Seen]:
    """Take up to so many messages of a queue, and give them back."""
    port = await house.feed.channel()
    take = _take_single if names.is_single(queue) else _take
    try:
        taken = [
            (
                method.delivery_tag or 0,
                foreign.read(names.source, (method, properties, body)),
            )
            for method, properties, body in await take(port, queue, most)
        ]
        await house.forgive(records(_returns(names, queue, taken)))
        for tag, _ in taken:
            port.give_back(tag, is_bound=names.source.bound is not None)
        await _are_back(house, port, queue, count=len(taken))
    except ChannelLost as error:
        raise house.topology.refused(error, f"look into {queue!r}") from error
    finally:
        await close_quietly(port)
    is_later = queue in names.ladder
    return [
        Seen(
            one.message,
            one.round,
            one.crashes,
            one.due if is_later else None,
            one.published,
        )
        for _, one in taken
    ]


async def _are_back(house: House, port: Port, queue: str, *, count: int) -> None:
    """Wait until what was given back counts again, so that a look takes it from nobody's sight."""
    for _ in range(BACK_LOOKS if count else 0):
        there = await port.look(queue)
        if there.consumers or there.ready >= count:
            return
        await house.nap(BACK_PAUSE)


async def _take(port: Port, queue: str, most: int) -> list[Got]:
    taken: list[Got] = []
    while len(taken) < most:
        got = await port.get(queue)
        if got is None:
            break
        taken.append(got)
    return taken


async def _take_single(port: Port, queue: str, most: int) -> list[Got]:
    """Of a queue with a single active consumer: nothing while there is one."""
    count = await port.look(queue)
    wanted = min(most, count.ready)
    if not wanted or count.consumers:
        return []
    taken: list[Got] = []
    came = asyncio.Event()

    def on_message(method: spec.Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        taken.append((method, properties, body))
        if len(taken) == wanted:
            came.set()

    # A worker that comes meanwhile is active as soon as this one has given back.
    arguments = {"x-priority": -1}
    tag = await port.consume(queue, on_message, prefetch=wanted, arguments=arguments)
    try:
        async with asyncio.timeout(SINGLE_WAIT):
            await came.wait()
    except TimeoutError:
        pass  # a worker was faster
    await port.cancel(tag)
    return taken


def _returns(names: Names, queue: str, taken: Sequence[tuple[int, Arrived]]) -> list[Return]:
    """What must be pardoned; in other queues nobody asks how often a message was back."""
    if queue not in names.work and queue != names.suspects:
        return []
    return [back(queue, one.message, one.count) for _, one in taken]


class Seen(NamedTuple):
    """A message seen on the way."""

    message: Message
    round: int
    crashes: int
    due: float | None
    published: float


def _position(after: str) -> int:
    if not after:
        return 0
    if not after.isdecimal():
        raise Misuse(f"position {after!r} is none: it is the number of a message in its part")
    return int(after)
