"""What an operator sees: lag, browse, inspect; what is scheduled, what a retired group leaves."""

from __future__ import annotations

from msgspec.structs import replace

from callcast.core.outcome import Dead, Later
from callcast.ports.broker import Browses, Inspects, Lag, Part, Retires, Schedules, Source
from callcast.testing.broker_suite.harness import Harness, case, ids, settle

LOOKS_MAX = 100
"""Looks at a count until it is what it is to be."""


class Watching(Harness):
    """Cases about `lag` and the abilities."""

    async def one_of_each(self) -> Source:
        """A group with 3 ready, 2 leased, 1 delayed and 1 dead message."""
        source = await self.listen()
        worker = await self.join(source)
        await self.publish("later", "dead")
        later = Later(self.delay * 10)  # for longer than any test takes
        for delivery in await self.take(worker, 2):
            verdict = later if delivery.message.id == "later" else Dead("for the test")
            await settle(worker, [delivery], verdict)
        await self.publish("leased1", "leased2")
        await self.take(worker, 2)
        await self.publish("ready1", "ready2", "ready3")
        return source

    @case
    async def test_the_lag_counts_each_part(self) -> None:
        lag = await self.broker.lag(await self.one_of_each())
        assert (lag.ready, lag.leased, lag.delayed, lag.dead) == (3, 2, 1, 1)

    @case
    async def test_the_lag_says_how_old_the_oldest_is(self) -> None:
        source = await self.listen()
        await self.publish("old")
        await self.pass_time(self.delay)
        await self.publish("new")
        oldest = (await self.broker.lag(source)).oldest
        assert self.delay * 0.9 <= oldest <= self.delay * 1.1 + self.patience

    @case
    async def test_the_lag_of_a_group_that_is_done_is_nothing(self) -> None:
        source = await self.listen()
        await self.publish("a", "b")
        await self.finish(await self.join(source))
        assert await self.broker.lag(source) == Lag()

    @case
    async def test_the_lag_counts_what_waits_behind_a_delayed_message_as_delayed(self) -> None:
        source = await self.listen(ordered=True)
        worker = await self.join(source)
        await self.publish("a1", "a2", "a3", key="a")
        await self.publish("b1", key="b")
        first = await self.take_one(worker)
        await settle(worker, [first], Later(self.delay))
        lag = await self.broker.lag(source)
        assert (lag.ready, lag.delayed) == (1, 3)

    @case
    async def test_browsing_consumes_and_counts_nothing(self) -> None:
        broker = self.need(Browses)
        source = await self.one_of_each()
        before = await self.broker.lag(source)
        for _ in range(3):
            seen = {part: await broker.browse(source, part=part) for part in Part}
            found = {part: sorted(one.message.id for one in ones) for part, ones in seen.items()}
            assert found == {
                Part.READY: ["ready1", "ready2", "ready3"],
                Part.DELAYED: ["later"],
                Part.DEAD: ["dead"],
            }
        after = await self.broker.lag(source)
        for _ in range(LOOKS_MAX):  # what was looked at may be on its way back
            if after.dead == before.dead:
                break
            await self.pass_time(self.grace)
            after = await self.broker.lag(source)
        assert replace(after, oldest=before.oldest) == before
        taken = await self.take_all(await self.join(source))
        assert sorted(ids(taken)) == ["ready1", "ready2", "ready3"]
        assert [one.crashes for one in taken] == [0, 0, 0]

    @case
    async def test_browsing_goes_on_where_it_stopped(self) -> None:
        broker = self.need(Browses)
        source = await self.listen()
        sent = await self.publish(*(f"m{number}" for number in range(7)))
        seen: list[str] = []
        after = ""
        for _ in range(len(sent)):
            page = await broker.browse(source, after=after, limit=3)
            if not page:
                break
            assert len(page) <= 3
            seen += [one.message.id for one in page]
            after = page[-1].position
        assert seen == sent

    @case
    async def test_a_delayed_message_shows_when_it_is_due(self) -> None:
        broker = self.need(Browses)
        source = await self.listen()
        worker = await self.join(source)
        await self.publish("a")
        await settle(worker, await self.take(worker, 1), Later(self.delay * 10))
        [glimpse] = await broker.browse(source, part=Part.DELAYED)
        assert glimpse.due is not None
        left = glimpse.due - await self.wall()
        assert self.delay * 4 <= left <= self.delay * 10.1

    @case
    async def test_all_sources_are_listed(self) -> None:
        broker = self.need(Browses)
        wanted = {await self.listen("billing"), await self.listen("shipping", ordered=True)}
        assert wanted <= set(await broker.sources())

    @case
    async def test_a_scheduled_message_is_never_early(self) -> None:
        self.need(Schedules)
        source = await self.listen()
        worker = await self.join(source)
        due = await self.wall() + self.delay
        await self.broker.publish([replace(self.message("a"), deliver_at=due)])
        await self.pass_time(self.delay * 0.9)
        await self.nothing(worker)
        await self.pass_time(self.delay * 0.2)
        delivery = await self.take_one(worker)
        assert (delivery.message.id, delivery.round) == ("a", 0)

    @case
    async def test_a_retired_group_is_gone_with_all_that_waits_for_it(self) -> None:
        broker = self.need(Retires)
        source = await self.one_of_each()
        await self.leave()
        await broker.retire(source)
        await broker.retire(source)
        await self.listen()
        await self.nothing(await self.join(source))
        assert await self.broker.lag(source) == Lag()

    @case
    async def test_each_difference_is_named_before_it_is_made(self) -> None:
        broker = self.need(Inspects)
        wanted = [self.source("billing"), self.source("shipping")]
        found = await broker.differences([self.topic], wanted)
        assert all(one.is_missing for one in found)
        assert {str(source) for source in wanted} <= {one.name for one in found}
        assert all(str(one) == one.detail and one.name in one.detail for one in found)
        await self.broker.ensure([self.topic], wanted)
        assert list(await broker.differences([self.topic], wanted)) == []
        asked = self.source("billing", ordered=True)
        other = await broker.differences([self.topic], [asked])
        assert [(one.name, one.is_missing) for one in other] == [(str(asked), False)]
        assert "ordered" in other[0].detail
