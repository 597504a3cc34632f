"""Topics and groups: what a source needs, what is there, making and ending it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic

from callcast.brokers.kafka.control import Control
from callcast.brokers.kafka.desk import Place
from callcast.brokers.kafka.link import Link
from callcast.brokers.kafka.names import Names, clashes, names_of
from callcast.brokers.kafka.options import RECORD_MAX, Options
from callcast.brokers.kafka.trimming import FOR_EVER, keep_for
from callcast.core.errors import Misuse, Unavailable
from callcast.core.names import checked_name
from callcast.ports.broker import Difference, Source, Start

RETRY_PARTITIONS = 2
"""Of each retry topic: its messages wait, they do not need the width of the topic."""

_KEPT = {"retention.ms": "-1", "max.message.bytes": str(RECORD_MAX)}


class Topology:
    """Makes and compares."""

    def __init__(self, link: Link, control: Control) -> None:
        self._link = link
        self._control = control

    async def ensure(self, topics: Sequence[str], sources: Sequence[Source]) -> None:
        """Make what is missing; raises `Misuse` naming every group that is otherwise."""
        wanted = needed(topics, sources, self._link.options)
        await self._control.prepare()
        other = [text for source in sources for text in self._otherwise(source)]
        known = list(self._control.roll.sources.values())
        others = clashes([], known)  # what others share already is not asked for here
        other += [said for said in clashes(topics, [*known, *sources]) if said not in others]
        if other:
            raise Misuse("; ".join(other))
        there = await self._link.partitions(list(wanted), anew=True)  # it may have been deleted
        made = await self._link.create([wanted[name] for name in wanted if name not in there])
        for topic in {*topics, *(source.topic for source in sources)} & set(made):
            await self._control.note_made(topic)
        for source in sources:
            if self._control.roll.there(source) is None:
                await self._begin(source, names_of(source))
                await self._control.enrol(source)

    async def differences(
        self, topics: Sequence[str], sources: Sequence[Source]
    ) -> list[Difference]:
        """What is missing or otherwise; looks only."""
        wanted = needed(topics, sources, self._link.options)
        await self._control.refresh()
        there = await self._link.partitions(list(wanted), anew=True)
        mains = dict.fromkeys([*topics, *(source.topic for source in sources)])
        found = [
            Difference(topic, f"topic {topic!r} is missing", is_missing=True)
            for topic in mains
            if topic not in there
        ]
        for source in sources:
            name = str(source)
            if self._control.roll.there(source) is None:
                found.append(Difference(name, f"group {source} is missing", is_missing=True))
                continue
            other = self._otherwise(source)
            found += [Difference(name, text, is_missing=False) for text in other]
            own = () if other else (*needed_of(source, self._link.options),)
            found += [
                Difference(name, f"group {source}: its topic {part!r} is missing", is_missing=True)
                for part in own
                if part not in there and part not in mains
            ]
        return found

    async def retire(self, source: Source) -> None:
        """Forget a group with all its own topics; the topic itself stays."""
        names = names_of(source)
        await self._control.prepare()
        for group in (names.group, names.side):
            await self._delete_group(source, group)
        if self._control.roll.there(source) is not None:
            await self._control.strike(source)
        if not self._control.roll.of(source.topic):
            retain = self._link.options.retain
            await keep_for(self._link, self._control, source.topic, seconds=retain)
        own = [name for name in needed_of(source, self._link.options) if name != source.topic]
        there = await self._link.partitions(own, anew=True)
        if there:
            for name, future in self._link.admin.delete_topics(list(there)).items():
                try:
                    await self._link.answer(future)
                except KafkaException as error:
                    raise self._link.faults.of(f"delete topic {name!r}", error) from error
            await self._until_gone(list(there))

    async def _delete_group(self, source: Source, group: str) -> None:
        link = self._link
        try:
            await link.of_group(lambda: link.admin.delete_consumer_groups([group])[group])
        except KafkaException as error:
            if error.args[0].code() == KafkaError.NON_EMPTY_GROUP:
                raise Misuse(
                    f"group {source} has workers in other processes: stop them first, then retire"
                    " it"
                ) from error
            if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise self._link.faults.of(f"delete group {group!r}", error) from error

    async def _until_gone(self, names: Sequence[str]) -> None:
        limit = self._link.clock.now() + 5.0
        while await self._link.partitions(names, anew=True):
            if self._link.clock.now() >= limit:
                raise Unavailable(f"{names[0]!r} was deleted, and is still there")
            await self._link.clock.sleep(0.02)

    def _otherwise(self, source: Source) -> list[str]:
        """What of an existing group is not as it is wanted."""
        there = self._control.roll.there(source)
        if there is None:
            return []
        return [
            f"group {source} has {name}={getattr(there, name)!r}, wanted is"
            f" {getattr(source, name)!r}: retire it first, or use another group"
            for name in ("ordered", "lanes")
            if getattr(there, name) != getattr(source, name)
        ]

    async def _begin(self, source: Source, names: Names) -> None:
        """Fix where a new group starts, in every partition, before anybody reads.

        The first group of a topic starts at the earliest kept, as the publisher cannot know whether
        anybody listens. What has a position already keeps it: a group made half-way goes on.
        """
        count = (await self._link.partitions([source.topic]))[source.topic]
        places: list[Place] = [(source.topic, number) for number in range(count)]
        is_first = not self._control.roll.was_heard(source.topic)
        if is_first or source.start is Start.EARLIEST:
            starts = await self._link.beginnings(places)
        else:
            starts = await self._link.ends(places)
        # From now on what is kept is deleted when all groups have passed it, and not before.
        await keep_for(self._link, self._control, source.topic, seconds=FOR_EVER)
        committed = await self._link.committed(names.group, places, is_first=True)
        missing = {place: at for place, at in starts.items() if place not in committed}
        try:
            await self._link.commit(names.group, missing)
        except Unavailable:
            # Another process makes the same group, and reads already: its start is as good.
            if not set(missing) <= set(await self._link.committed(names.group, places)):
                raise


def needed(
    topics: Sequence[str], sources: Sequence[Source], options: Options
) -> Mapping[str, NewTopic]:
    """All topics by name; raises `Misuse` for a name that is none."""
    wanted = {checked_name(topic, "topic"): _event(topic, options) for topic in topics}
    for source in sources:
        wanted |= needed_of(source, options)
    return wanted


def needed_of(source: Source, options: Options) -> Mapping[str, NewTopic]:
    """The topics of one source."""
    names = names_of(source)
    copies = options.replication
    compacted = {**_KEPT, "cleanup.policy": "compact"}
    return {
        names.topic: _event(names.topic, options),
        names.redrive: NewTopic(names.redrive, 1, copies, config=_KEPT),
        names.dead: NewTopic(names.dead, 1, copies, config=compacted),
        **{name: NewTopic(name, RETRY_PARTITIONS, copies, config=_KEPT) for name in names.retries},
    }


def _event(topic: str, options: Options) -> NewTopic:
    return NewTopic(
        topic,
        options.partitions,
        options.replication,
        config={
            "retention.ms": str(int(options.retain * 1_000)),
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(RECORD_MAX),
        },
    )
