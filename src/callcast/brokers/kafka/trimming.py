"""How long topics keep what is in them: until all groups have passed it, however long that takes.

The server's own retention counts time alone: a service that is down for longer would lose what
waits for it. So a topic that has a group and that `ensure` made keeps everything, and those who
read it delete what every group has passed, once it is older than `retain`. A topic without any
group, and one that others made, is kept as its own settings say. What is for one group alone,
redrives and retries, goes when that group has passed it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from confluent_kafka import KafkaException, TopicPartition

from callcast.brokers.kafka.asking import kept_for
from callcast.brokers.kafka.control import Control
from callcast.brokers.kafka.desk import Place
from callcast.brokers.kafka.link import ASK, Link
from callcast.brokers.kafka.names import Names, names_of
from callcast.core.errors import CallcastError
from callcast.ports.broker import Source

EVERY = 60.0
"""Seconds between two trims of one source by one process."""
FOR_EVER = -1.0


async def keep_for(link: Link, control: Control, topic: str, *, seconds: float) -> None:
    """Let a topic of our making keep its records for so long; one of others stays as it is."""
    if not control.roll.was_made(topic):
        return
    [future] = link.admin.incremental_alter_configs(
        [kept_for(topic, seconds)], request_timeout=ASK
    ).values()
    try:
        await link.answer(future)
    except KafkaException as error:
        raise link.faults.of(f"change how long topic {topic!r} keeps its records", error) from error


class Trimming:
    """Deletes what nobody needs any more of the topics of one source, now and then."""

    def __init__(self, source: Source, link: Link, control: Control) -> None:
        self._source = source
        self._link = link
        self._control = control
        self._next_at = link.clock.now() + EVERY

    async def look(self) -> None:
        """Trim, unless that was done not long ago."""
        if self._link.clock.now() < self._next_at:
            return
        self._next_at = math.inf  # not twice at once
        try:
            await self.trim()
        except CallcastError:
            pass  # the topics only grow meanwhile, and the next look comes
        finally:
            self._next_at = self._link.clock.now() + EVERY

    async def trim(self) -> None:
        """Delete what all groups have passed."""
        await self._control.refresh()  # another process may have made a group a moment ago
        names = names_of(self._source)
        passed = await self._passed_beside(names)
        if self._control.roll.was_made(self._source.topic):
            passed |= await self._passed_by_all(names.topic)
        begun = await self._link.beginnings(list(passed))
        parts = [TopicPartition(*place, at) for place, at in passed.items() if at > begun[place]]
        if not parts:
            return
        deleted = self._link.admin.delete_records(parts, request_timeout=ASK)
        for part, future in deleted.items():
            try:
                await self._link.answer(future)
            except KafkaException as error:
                raise self._link.faults.of(f"trim {part.topic}/{part.partition}", error) from error

    async def _passed_beside(self, names: Names) -> dict[Place, int]:
        """How far the group is in the topics that are its own."""
        counts = await self._link.partitions(names.beside)
        places = [(topic, number) for topic, count in counts.items() for number in range(count)]
        committed = await self._link.committed(names.side, places)
        return {place: at for place, (at, _) in committed.items()}

    async def _passed_by_all(self, topic: str) -> Mapping[Place, int]:
        """How far the slowest group is, but not into what `retain` keeps to be read again."""
        count = (await self._link.partitions([topic], anew=True)).get(topic, 0)
        places = [(topic, number) for number in range(count)]
        oldest_kept = self._link.clock.wall() - self._link.options.retain
        ends = await self._link.ends(places)  # before: what comes meanwhile is not old
        found = await self._link.offsets_at(places, oldest_kept)
        passed = {place: at if at >= 0 else ends[place] for place, at in found.items()}
        for source in self._control.roll.of(topic):
            committed = await self._link.committed(names_of(source).group, places)
            passed = {
                place: min(at, committed[place][0])
                for place, at in passed.items()
                if place in committed
            }
        return passed
