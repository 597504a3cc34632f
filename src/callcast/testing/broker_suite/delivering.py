"""Who gets which message, and how a fetch waits for it."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from callcast.core.errors import Misuse, NotSent, Unpublished
from callcast.core.outcome import DONE, Later
from callcast.ports.broker import Source, Start
from callcast.testing.broker_suite.harness import Harness, case, ids, raised, settle


class Delivering(Harness):
    """Cases about `ensure`, `consume` and `fetch`."""

    @case
    async def test_every_group_gets_every_message(self) -> None:
        billing = await self.join(await self.listen("billing"))
        shipping = await self.join(await self.listen("shipping"))
        sent = await self.publish("a", "b", "c")
        assert sorted(await self.finish(billing)) == sent
        assert sorted(await self.finish(shipping)) == sent

    @case
    async def test_workers_of_one_group_share_its_messages(self) -> None:
        source = await self.listen()
        one = await self.join(source)
        other = await (await self.another()).consume(source, lease=self.lease)
        sent = await self.publish(*(f"m{number}" for number in range(20)))
        mine = await self.take(one, 10)
        others = await self.take_all(other)
        assert sorted(ids(mine) + ids(others)) == sorted(sent)

    @case
    async def test_what_one_worker_holds_no_other_gets(self) -> None:
        source = await self.listen()
        await self.publish("a", "b")
        one = await self.join(source)
        held = await self.take(one, 2)
        other = await (await self.another()).consume(source, lease=self.lease)
        await self.pass_time(self.lease * 0.5)
        await self.nothing(other)
        await settle(one, held, DONE)

    @case
    async def test_a_message_for_one_group_reaches_only_that_group(self) -> None:
        billing = await self.join(await self.listen("billing"))
        shipping = await self.join(await self.listen("shipping"))
        await self.broker.publish([replace(self.message("a"), group="shipping")])
        assert ids(await self.take(shipping, 1)) == ["a"]
        await self.nothing(billing)

    @case
    async def test_a_message_for_a_group_that_is_not_there_is_refused(self) -> None:
        await self.listen("billing")
        if not self.broker.traits.knows_hearers:
            self.skip(f"{self.broker.traits.name} cannot tell who hears")
        astray = replace(self.message("a"), group="nobody")
        refused = await raised(Unpublished, self.broker.publish([astray]))
        assert isinstance(refused.errors[0], NotSent)

    @case
    async def test_topics_are_apart(self) -> None:
        source = await self.listen()
        other = Source(f"{self.topic}.v2", "billing")
        await self.broker.ensure([other.topic], [other])
        await self.broker.publish([replace(self.message("a"), topic=other.topic)])
        await self.nothing(await self.join(source))
        assert ids(await self.take(await self.join(other), 1)) == ["a"]

    @case
    async def test_a_new_group_hears_what_is_published_after_it_was_made(self) -> None:
        await self.listen("billing")
        await self.publish("before")
        source = await self.listen("late")
        await self.publish("after")  # before the group's first consumer
        assert ids(await self.take_all(await self.join(source))) == ["after"]

    @case
    async def test_a_group_that_starts_at_the_earliest_hears_what_is_kept(self) -> None:
        if not self.broker.traits.keeps_unhandled:
            await self.keep()
        await self.listen("billing")
        sent = await self.publish("a", "b", "c")
        late = await self.join(await self.listen("late", start=Start.EARLIEST))
        sent += await self.publish("d")
        assert sorted(await self.finish(late)) == sent

    @case
    async def test_ensuring_again_changes_nothing(self) -> None:
        source = await self.listen()
        sent = await self.publish("a", "b")
        worker = await self.join(source)
        held = await self.take(worker, 1)
        await self.listen()
        await (await self.another()).ensure([self.topic], [source])
        rest = await self.take_all(await self.join(source))
        assert sorted(ids(held) + ids(rest)) == sent
        await settle(worker, held, DONE)

    @case
    async def test_ensuring_a_group_with_other_facts_names_the_difference(self) -> None:
        source = await self.listen()
        other = self.source(ordered=True)
        error = await raised(Misuse, self.broker.ensure([self.topic], [other]))
        assert str(source) in str(error)
        assert "ordered" in str(error)

    @case
    async def test_a_fetch_hands_over_at_most_its_limit(self) -> None:
        worker = await self.join(await self.listen())
        await self.publish("a", "b", "c", "d", "e")
        taken = await self.take(worker, 1)
        fetched = await worker.fetch(3, self.grace)
        assert 1 <= len(fetched) <= 3
        await settle(worker, [*taken, *fetched], DONE)

    @case
    async def test_a_fetch_waits_for_the_first_only(self) -> None:
        worker = await self.join(await self.listen())
        await self.publish("a")
        taken = await worker.fetch(10, 1_000_000.0)  # would outlast the patience of any case
        assert ids(taken) == ["a"]

    @case
    async def test_a_waiting_fetch_wakes_when_a_message_comes(self) -> None:
        worker = await self.join(await self.listen())
        waiting = self.start(worker.fetch(10, 1_000_000.0))
        await self.pass_time(0)
        assert not waiting.done()
        await self.publish("a")
        assert ids(await waiting) == ["a"]

    @case
    async def test_a_waiting_fetch_wakes_when_a_delay_ends(self) -> None:
        worker = await self.join(await self.listen())
        await self.publish("a")
        await settle(worker, await self.take(worker, 1), Later(self.delay))
        waiting = self.start(worker.fetch(10, 1_000_000.0))
        await self.pass_time(self.delay)
        assert ids(await waiting) == ["a"]

    @case
    async def test_a_fetch_that_found_nothing_returns_after_its_wait(self) -> None:
        worker = await self.join(await self.listen())
        waiting = self.start(worker.fetch(10, self.delay))
        await self.pass_time(self.delay * 0.5)
        assert not waiting.done()
        await self.pass_time(self.delay)
        assert list(await waiting) == []

    @case
    async def test_a_cancelled_fetch_loses_and_counts_nothing(self) -> None:
        source = await self.listen()
        worker = await self.join(source)
        kept: list[str] = []
        sent: list[str] = []
        for turns in range(12):  # the cancellation meets the fetch at each of its steps
            fetching = self.start(worker.fetch(10, 1_000_000.0))
            await self.pass_time(0)
            sent += await self.publish(f"m{turns}")
            for _ in range(turns):
                await _turn()
            fetching.cancel()
            [result] = await asyncio.gather(fetching, return_exceptions=True)
            if not isinstance(result, BaseException):
                await settle(worker, result, DONE)
                kept += ids(result)
        other = await self.join(source)
        missing = len(sent) - len(kept)
        rest = await self.take(other, missing)
        assert sorted(kept + ids(rest)) == sorted(sent)
        assert [delivery.crashes for delivery in rest] == [0] * missing

    @case
    async def test_suspects_come_last(self) -> None:
        source = await self.listen()
        await self.publish("suspect")
        await self.crash(source, times=2)
        await self.publish("fresh", "fresher")
        worker = await self.join(source)
        await self.pass_time(self.arrival)  # it is the last of what is there, not of what will be
        taken = ids(await self.take_all(worker))
        while "suspect" not in taken:
            taken += ids(await self.take(worker, 1))
        assert taken[-1] == "suspect"


async def _turn() -> None:
    """Let the loop turn once."""
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()
