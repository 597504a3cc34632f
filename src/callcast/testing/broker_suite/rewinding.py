"""What was consumed is read again, and handed to one group: the ability `Rewinds`."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from callcast.core.errors import Misuse
from callcast.ports.broker import Glimpse, Rewinds, Source
from callcast.testing.broker_suite.harness import Harness, case, ids, raised


class Rewinding(Harness):
    """Cases about `read`, on a broker that keeps its log (`open_keeping`)."""

    async def rewinder(self) -> Rewinds:
        """This case's broker, opened anew so that it keeps what is published."""
        await self.keep()
        found = self.need(Rewinds)
        if not self.broker.traits.log_kept > 0:
            self.skip(f"{self.broker.traits.name} keeps no log here (trait log_kept)")
        return found

    async def three_apart(self) -> Source:
        """A group that has handled three messages, published one delay apart."""
        source = await self.listen()
        worker = await self.join(source)
        for name in ("first", "second", "third"):
            await self.publish(name)
            await self.pass_time(self.delay)
        assert len(await self.finish(worker)) == 3
        return source

    @case
    async def test_what_was_handled_can_be_read_again(self) -> None:
        broker = await self.rewinder()
        source = await self.listen()
        sent = [
            replace(self.message(name, key="k"), headers={"who": name}, correlation_id="c")
            for name in ("a", "b", "c")
        ]
        await self.broker.publish(sent)
        assert await self.finish(await self.join(source)) == ["a", "b", "c"]
        found = [one.message for one in await broker.read(self.topic)]
        assert [replace(one, time=0.0) for one in found] == [replace(one, time=0.0) for one in sent]

    @case
    async def test_reading_consumes_and_counts_nothing(self) -> None:
        broker = await self.rewinder()
        source = await self.listen()
        sent = await self.publish("a", "b")
        for _ in range(3):
            assert names(await broker.read(self.topic)) == sent
        taken = await self.take(await self.join(source), 2)
        assert [(one.message.id, one.crashes) for one in taken] == [("a", 0), ("b", 0)]

    @case
    async def test_reading_goes_on_where_it_stopped_and_ends(self) -> None:
        broker = await self.rewinder()
        await self.listen()
        sent = await self.publish(*(f"m{number}" for number in range(7)), key="k")
        seen: list[str] = []
        after = ""
        while page := await broker.read(self.topic, after=after, limit=3):
            assert len(page) <= 3
            seen += names(page)
            assert len(seen) <= len(sent), f"it goes round: {seen}"
            after = page[-1].position
        assert seen == sent

    @case
    async def test_a_window_in_time_holds_what_was_published_in_it(self) -> None:
        broker = await self.rewinder()
        await self.three_apart()
        whole = await broker.read(self.topic)
        assert names(whole) == ["first", "second", "third"]
        times = [one.at for one in whole]
        assert [at is not None for at in times] == [True, True, True]
        _, since, until = [at or 0.0 for at in times]
        assert names(await broker.read(self.topic, since=since, until=until)) == ["second"]
        assert names(await broker.read(self.topic, since=since)) == ["second", "third"]
        assert names(await broker.read(self.topic, until=since)) == ["first"]

    @case
    async def test_a_message_tells_when_it_was_published(self) -> None:
        broker = await self.rewinder()
        before = await self.wall()
        await self.three_apart()
        after = await self.wall()
        times = [one.at or 0.0 for one in await broker.read(self.topic)]
        # Clocks of servers tell milliseconds, and an operator thinks in minutes.
        assert all(before - 0.1 <= at <= after + 0.1 for at in times)
        assert times == sorted(times)

    @case
    async def test_a_window_between_positions_ends_at_the_last(self) -> None:
        broker = await self.rewinder()
        await self.listen()
        sent = await self.publish(*(f"m{number}" for number in range(5)), key="k")
        at = [one.position for one in await broker.read(self.topic)]
        assert names(await broker.read(self.topic, after=at[0], last=at[2])) == sent[1:3]
        assert names(await broker.read(self.topic, last=at[1])) == sent[:2]

    @case
    async def test_a_position_that_is_none_is_refused(self) -> None:
        broker = await self.rewinder()
        await self.listen()
        error = await raised(Misuse, broker.read(self.topic, after="of no use"))
        assert "of no use" in str(error)
        error = await raised(Misuse, broker.read(self.topic, last="of no use"))
        assert "of no use" in str(error)

    @case
    async def test_a_topic_that_is_not_there_has_nothing_to_read(self) -> None:
        broker = await self.rewinder()
        assert list(await broker.read(f"{self.topic}.no")) == []

    @case
    async def test_a_replay_reaches_its_group_alone_and_is_not_kept_again(self) -> None:
        broker = await self.rewinder()
        billing, shipping = await self.listen("billing"), await self.listen("shipping")
        first, other = await self.join(billing), await self.join(shipping)
        sent = await self.publish("a", "b")
        assert (await self.finish(first), await self.finish(other)) == (sent, sent)
        seen = [one.message for one in await broker.read(self.topic)]
        await self.broker.publish([replace(one, group="shipping") for one in seen])
        assert ids(await self.take(other, 2)) == sent
        await self.nothing(first)
        assert names(await broker.read(self.topic)) == sent

    @case
    async def test_what_is_kept_survives_a_restart(self) -> None:
        await self.rewinder()
        if not self.broker.traits.durable:
            self.skip(f"{self.broker.traits.name} is not durable")
        source = await self.listen()
        sent = await self.publish("a", "b")
        await self.finish(await self.join(source))
        broker = await self.rewinder()
        assert names(await broker.read(self.topic)) == sent


def names(glimpses: Sequence[Glimpse]) -> list[str]:
    """Which messages these are."""
    return [glimpse.message.id for glimpse in glimpses]
