"""What an operator does to a group: pause it, let it go on, end it."""

from __future__ import annotations

from msgspec.structs import replace

from callcast.core.errors import Misuse
from callcast.core.outcome import DONE, Dead
from callcast.ports.broker import Inspects, Lag, Part, Pauses, Retires
from callcast.testing.broker_suite.harness import Harness, case, ids, raised, settle

BINDS = 5.0
"""Seconds within which a pause binds every worker."""


class Operating(Harness):
    """Cases about `Pauses`, `Retires` and `Inspects`."""

    @case
    async def test_a_paused_source_hands_out_nothing_until_it_is_resumed(self) -> None:
        broker = self.need(Pauses)
        source = await self.listen()
        worker = await self.join(source)
        await broker.pause(source)
        await self.publish("a")
        await self.nothing(worker)
        lag = await self.broker.lag(source)
        assert (lag.ready, lag.paused) == (1, True)
        waiting = self.start(worker.fetch(10, 1_000_000.0))
        await self.pass_time(0)
        await broker.resume(source)
        assert ids(await waiting) == ["a"]
        assert not (await self.broker.lag(source)).paused

    @case
    async def test_what_is_out_while_paused_can_be_settled(self) -> None:
        broker = self.need(Pauses)
        source = await self.listen()
        worker = await self.join(source)
        await self.publish("a")
        held = await self.take(worker, 1)
        await broker.pause(source)
        await settle(worker, held, DONE)
        await broker.resume(source)
        await self.nothing(worker)

    @case
    async def test_a_pause_survives_a_restart(self) -> None:
        source = await self.listen()
        await self.need(Pauses).pause(source)
        await self.publish("a")
        await self.reopen()
        worker = await self.join(source)
        await self.nothing(worker)
        await self.need(Pauses).resume(source)
        assert ids(await self.take(worker, 1)) == ["a"]

    @case
    async def test_a_pause_binds_the_workers_of_others_within_five_seconds(self) -> None:
        source = await self.listen()
        operator = self.need(Pauses)
        others = await self.another()
        running = await others.consume(source, lease=self.lease * 10)
        await self.publish("a")
        [held] = await self.take(running, 1)
        await operator.pause(source)
        assert (await others.lag(source)).paused
        await self.pass_time(BINDS)
        await self.publish("b", "c")
        await self.nothing(running)
        await settle(running, [held], DONE)
        await self.nothing(running)
        waiting = self.start(running.fetch(1, 1_000_000.0))
        await self.pass_time(0)
        await operator.resume(source)
        await self.pass_time(BINDS)
        assert ids(await waiting) == ["b"]

    @case
    async def test_a_pause_counts_nothing_and_loses_nothing(self) -> None:
        broker = self.need(Pauses)
        source = await self.listen()
        worker = await self.broker.consume(source, lease=self.lease * 10)
        sent = await self.publish(*(f"m{number}" for number in range(20)))
        held = await self.take(worker, 1)
        await broker.pause(source)
        await self.pass_time(BINDS)
        lag = await self.broker.lag(source)
        assert (lag.ready, lag.leased) == (19, 1)
        await broker.resume(source)
        rest = await self.take(worker, 19)
        assert sorted(ids(held) + ids(rest)) == sorted(sent)
        assert {one.crashes for one in rest} == {0}

    @case
    async def test_dead_letters_of_a_paused_group_stay_within_reach(self) -> None:
        broker = self.need(Pauses)
        source = await self.listen()
        worker = await self.join(source)
        await self.publish("a")
        await settle(worker, await self.take(worker, 1), Dead("for the test"))
        await broker.pause(source)
        letters = await self.join(source, part=Part.DEAD)
        [letter] = await self.take(letters, 1)
        await self.broker.publish([replace(letter.message, group=source.group)])
        await settle(letters, [letter], DONE)
        await self.nothing(worker)
        await broker.resume(source)
        assert ids(await self.take(worker, 1)) == ["a"]

    @case
    async def test_pausing_is_the_groups_own_and_can_be_repeated(self) -> None:
        broker = self.need(Pauses)
        billing, shipping = await self.listen("billing"), await self.listen("shipping")
        await broker.pause(billing)
        await broker.pause(billing)
        await self.publish("a")
        assert ids(await self.take(await self.join(shipping), 1)) == ["a"]
        assert [(await self.broker.lag(one)).paused for one in (billing, shipping)] == [True, False]
        await self.broker.ensure([self.topic], [billing])  # a service starts meanwhile
        await self.nothing(await self.join(billing))
        await broker.resume(billing)
        await broker.resume(billing)
        assert ids(await self.take(await self.join(billing), 1)) == ["a"]

    @case
    async def test_a_group_that_is_not_there_cannot_be_paused(self) -> None:
        broker = self.need(Pauses)
        await self.listen()
        nobody = self.source("nobody")
        assert "nobody" in str(await raised(Misuse, broker.pause(nobody)))
        assert "nobody" in str(await raised(Misuse, broker.resume(nobody)))

    @case
    async def test_a_group_made_anew_after_it_was_retired_is_not_paused(self) -> None:
        broker = self.need(Retires)
        source = await self.listen()
        await self.need(Pauses).pause(source)
        await broker.retire(source)
        await self.listen()
        assert not (await self.broker.lag(source)).paused
        await self.publish("a")
        assert ids(await self.take(await self.join(source), 1)) == ["a"]

    @case
    async def test_retiring_one_group_takes_nothing_from_another(self) -> None:
        broker = self.need(Retires)
        billing, shipping = await self.listen("billing"), await self.listen("shipping")
        sent = await self.publish("a", "b")
        worker = await self.join(shipping)
        await settle(worker, await self.take(worker, 1), Dead("for the test"))
        await broker.retire(billing)
        lag = await self.broker.lag(shipping)
        assert (lag.ready, lag.dead) == (1, 1)
        assert await self.finish(worker) == sent[1:]
        await self.publish("c")
        assert ids(await self.take(worker, 1)) == ["c"]

    @case
    async def test_a_retired_group_is_missing_and_can_be_made_anew(self) -> None:
        broker = self.need(Retires)
        source = await self.listen()
        await self.listen("shipping")
        await self.publish("before")
        await broker.retire(source)
        found = await self.need(Inspects).differences([self.topic], [source])
        assert [(one.name, one.is_missing) for one in found] == [(str(source), True)]
        await self.listen()
        await self.publish("after")
        assert ids(await self.take_all(await self.join(source))) == ["after"]
        assert (await self.broker.lag(source)).dead == Lag().dead

    @case
    async def test_looking_for_differences_makes_nothing(self) -> None:
        broker = self.need(Inspects)
        wanted = self.source()
        first = await broker.differences([self.topic], [wanted])
        assert first
        assert list(await broker.differences([self.topic], [wanted])) == list(first)
