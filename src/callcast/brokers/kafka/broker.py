"""The broker's face: it holds the members and asks the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from confluent_kafka import ConsumerGroupState, KafkaException
from msgspec.structs import replace

from callcast.brokers.kafka import looking
from callcast.brokers.kafka.consumer import KafkaConsumer, Parts
from callcast.brokers.kafka.control import Control
from callcast.brokers.kafka.desk import HOLD_MAX
from callcast.brokers.kafka.letters import Letters, LettersConsumer
from callcast.brokers.kafka.link import ASK, Link
from callcast.brokers.kafka.member import Member
from callcast.brokers.kafka.names import Names, names_of
from callcast.brokers.kafka.options import BODY_MAX, Options
from callcast.brokers.kafka.publishing import Packing, failure, topic_of
from callcast.brokers.kafka.share import Habits
from callcast.brokers.kafka.topology import Topology
from callcast.brokers.kafka.trimming import Trimming
from callcast.core.errors import (
    CallcastError,
    Misuse,
    NotSent,
    Unanswered,
    Unavailable,
    Unpublished,
)
from callcast.core.message import Message
from callcast.ports.broker import Consumer, Difference, Glimpse, Lag, Part, Source, Traits
from callcast.ports.clock import Clock

REVOKE_WAIT = 60.0
"""Seconds that a partition which moves to another process waits for what is out of it."""
JOIN_WAIT = 10.0
"""Seconds that a new member waits for its group to take it in."""
SHARE_WAIT = 2.0
"""Seconds that a new member waits for its share; others may have to finish something first."""

TRAITS = Traits(
    name="kafka",
    durable_settle=False,
    knows_hearers=False,
    body_max_bytes=BODY_MAX,
    hold_max=HOLD_MAX,
    release_costs="nothing: it waits in this process",
)


class KafkaBroker:
    """Messages in the topics of a Kafka cluster; see `names` for which.

    A message is published when all in-sync replicas have it (`acks=all`, idempotent). A group's
    members share the partitions; what one of them holds no other gets, while its process lives and
    renews. After a kill, the others take over within the session's timeout.

    Nothing is connected before the first use. Offers the abilities `Browses`, `Inspects`,
    `Pauses`, `Retires` and `Rewinds`.
    """

    def __init__(self, options: Options, *, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._traits = replace(TRAITS, log_kept=options.retain)
        self._opened: Link | None = None
        self._control: Control | None = None
        self._members: dict[str, Member] = {}
        self._letters: dict[str, Letters] = {}
        self._consumers: set[KafkaConsumer | LettersConsumer] = set()
        self._packing = Packing()
        self._is_closed = False
        self._joining = asyncio.Lock()

    @property
    def traits(self) -> Traits:
        """What is so about this broker."""
        return self._traits

    async def ensure(self, topics: Sequence[str], sources: Sequence[Source]) -> None:
        """Make topics and groups exist; raises `Misuse` naming every group that is otherwise.

        A group that other processes have just made is no difference. Raises `Unavailable` with
        what to do when the cluster cannot be reached.
        """
        link = self._link()
        await Topology(link, self._controlled(link)).ensure(topics, sources)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Make all messages durable, in their order per key; raises `Unpublished`."""
        link = self._link()
        if not messages:
            return
        try:
            partitions = await link.partitions(list({topic_of(message) for message in messages}))
        except CallcastError as error:
            raise Unpublished([_not_sent(message, error) for message in messages]) from error
        parcels, errors = self._packing.pack(messages, partitions, self._clock.wall())
        failed = await link.sender.send([parcel for _, parcel in parcels])
        for place, fault in failed.items():
            index = parcels[place][0]
            told = errors[index] = failure(messages[index], fault, link.faults.why)
            what = f"write to topic {topic_of(messages[index])!r}"
            told.__cause__ = link.faults.refusal(what, fault)
        if any(errors):
            raise Unpublished(errors)

    async def consume(
        self, source: Source, *, part: Part = Part.READY, lease: float = 60.0, prefetch: int = 250
    ) -> Consumer:
        """Open a consumer. All of one source in this process share one member of the group.

        Returns once the group has given this process its share, or after some seconds while others
        finish what they hold. `prefetch` changes nothing: what is read ahead has bounds of its own.
        """
        del prefetch
        link = self._link()
        await self._known(source)
        letters = self._letters_of(source, link)
        if part is Part.DEAD:
            consumer = LettersConsumer(letters, link, lease=lease, on_close=self._forget)
            self._consumers.add(consumer)
            return consumer
        if part is Part.DELAYED:
            raise Misuse("what is delayed can be browsed, not consumed")
        async with self._joining:
            member = await self._join(source, link)
            member.users += 1
        control = self._controlled(link)
        parts = Parts(
            link=link,
            control=control,
            letters=letters,
            trimming=Trimming(source, link, control),
            leave=self._leave,
        )
        ready = KafkaConsumer(source, member, parts=parts, lease=lease, on_close=self._forget)
        self._consumers.add(ready)
        return ready

    async def lag(self, source: Source) -> Lag:
        """How far this group is behind.

        Of the partitions that other processes have, what is with their workers counts as ready.
        """
        link = self._link()
        await self._controlled(link).refresh()
        await self._known(source)
        names = names_of(source)
        member = self._members.get(names.group)
        found = await looking.lag(link, names, self._letters_of(source, link), member=member)
        return replace(found, paused=self._controlled(link).roll.is_paused(source))

    async def close(self) -> None:
        """Close all consumers, leave the groups, then disconnect. Idempotent."""
        self._is_closed = True
        link = self._opened
        if link is None:
            return
        for member in self._members.values():
            member.stop()  # all at once: a server that is away takes its time for each
        for consumer in list(self._consumers):
            await consumer.close()
        self._opened = None
        await link.close()

    # Browses, Inspects, Pauses, Retires, Rewinds

    async def sources(self) -> Sequence[Source]:
        """All groups that there are."""
        control = self._controlled(self._link())
        await control.refresh()
        return list(control.roll.sources.values())

    async def browse(
        self, source: Source, *, part: Part = Part.READY, after: str = "", limit: int = 100
    ) -> Sequence[Glimpse]:
        """The next `limit` messages of a part, oldest first."""
        link = self._link()
        await self._known(source)
        if part is Part.DEAD:
            return await self._letters_of(source, link).page(after, limit)
        names = names_of(source)
        member = self._members.get(names.group)
        return await looking.browse(link, names, (part, after, limit), member=member)

    async def differences(
        self, topics: Sequence[str], sources: Sequence[Source]
    ) -> Sequence[Difference]:
        """What `ensure` would make, and what it would refuse."""
        link = self._link()
        return await Topology(link, self._controlled(link)).differences(topics, sources)

    async def pause(self, source: Source) -> None:
        """Hand out nothing more of this group, in any process; binds within 5 s."""
        await self._known(source)
        await self._controlled(self._link()).pause(source, is_paused=True)
        self._ring(source)

    async def resume(self, source: Source) -> None:
        """Go on."""
        await self._known(source)
        await self._controlled(self._link()).pause(source, is_paused=False)
        self._ring(source)

    async def retire(self, source: Source) -> None:
        """Forget this group with all that waits for it, dead letters too. Idempotent.

        Its consumers in this process are closed; while another process still consumes, the server
        refuses, and so does this.
        """
        link = self._link()
        names = names_of(source)
        for consumer in list(self._consumers):
            if isinstance(consumer, KafkaConsumer) and consumer.member.names.group == names.group:
                await consumer.close()
        self._letters.pop(names.group, None)
        await Topology(link, self._controlled(link)).retire(source)

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
        """Kept messages that the server stored in that time (its wall clock), oldest first.

        A position is ``partition:offset``, several separated by commas. To read a whole topic to a
        known end, read until a page is empty; to follow it from there, go on asking with the
        position of the last message.
        """
        span = looking.Span(topic, since, until, after, last, limit)
        return await looking.read(self._link(), span)

    # What they share

    def _link(self) -> Link:
        if self._is_closed:
            raise NotSent("the broker is closed")
        if self._opened is None:
            self._opened = Link(self._options, self._clock)
        return self._opened

    def _controlled(self, link: Link) -> Control:
        if self._control is None:
            self._control = Control(link)
        return self._control

    def _letters_of(self, source: Source, link: Link) -> Letters:
        group = names_of(source).group
        if group not in self._letters:
            self._letters[group] = Letters(source, link)
        return self._letters[group]

    async def _known(self, source: Source) -> None:
        control = self._controlled(self._link())
        if control.roll.there(source) is None:
            await control.refresh()
        if control.roll.there(source) is None:
            raise Misuse(f"there is no group {source}: ensure it first")

    def _ring(self, source: Source) -> None:
        member = self._members.get(names_of(source).group)
        if member is not None:
            member.bells.ring()

    def _forget(self, consumer: KafkaConsumer | LettersConsumer) -> None:
        self._consumers.discard(consumer)

    # Members

    async def _join(self, source: Source, link: Link) -> Member:
        names = names_of(source)
        member = self._members.get(names.group)
        if member is not None and not member.is_ended:
            return member
        habits = Habits(
            config=self._options.member,
            clock=self._clock,
            faults=link.faults,
            revoke_wait=REVOKE_WAIT,
        )
        member = self._members[names.group] = Member(source, names, habits)
        member.start()
        is_in = False
        try:
            await self._until_shared(member, names, link)
            is_in = True
        finally:
            if not is_in:
                del self._members[names.group]
                member.stop()
                await link.office.do(member.join)
        return member

    async def _until_shared(self, member: Member, names: Names, link: Link) -> None:
        """Wait for the group to settle with its new member.

        It takes nobody in before all its members have answered or their sessions have ended, and
        one that was killed does not answer. So only an error is one; else fetching waits on.
        """
        limit = self._clock.now() + JOIN_WAIT
        while not member.is_assigned and self._clock.now() < limit:
            await self._clock.sleep(0.005)
        if not member.is_assigned and member.trouble is not None:
            raise Unavailable(
                f"group {names.group!r} did not take this process in within {JOIN_WAIT} s:"
                f" {member.trouble}"
            ) from member.trouble
        limit = self._clock.now() + SHARE_WAIT
        while (
            member.is_assigned
            and not await self._is_shared(names, link)
            and self._clock.now() < limit
        ):
            await self._clock.sleep(0.03)

    async def _is_shared(self, names: Names, link: Link) -> bool:
        """Whether the members of the group have all partitions between them."""
        counts = await link.partitions(names.consumed)
        held = 0
        asked = link.admin.describe_consumer_groups([names.group, names.side], request_timeout=ASK)
        for name, future in asked.items():
            try:
                group = await link.answer(future)
            except KafkaException as error:
                raise link.faults.of(f"look at group {name!r}", error) from error
            if group.state is not ConsumerGroupState.STABLE:
                return False
            held += sum(len(one.assignment.topic_partitions) for one in group.members)
        return held == sum(counts.values())

    async def _leave(self, member: Member) -> None:
        """One consumer less; the last one leaves the group."""
        member.users -= 1
        if member.users:
            return
        if self._members.get(member.names.group) is member:
            del self._members[member.names.group]
        member.stop()
        if self._opened is not None:
            await self._opened.office.do(member.join)


def _not_sent(message: Message, error: Exception) -> NotSent | Unanswered:
    fault = NotSent(f"message {message.id!r} was not sent: {error}", id=message.id)
    fault.__cause__ = error
    return fault
