"""What each verdict does, and what it leaves alone."""

from __future__ import annotations

from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.ports.broker import Part, Unsettled
from callcast.testing.broker_suite.harness import Harness, case, ids, raised, settle


class Settling(Harness):
    """Cases about `settle`."""

    @case
    async def test_what_is_done_never_comes_again(self) -> None:
        source = await self.listen()
        await self.publish("a", "b", "c")
        worker = await self.join(source)
        await settle(worker, await self.take(worker, 3), DONE)
        await self.pass_time(self.lease * 3)
        await self.nothing(await self.join(source))

    @case
    async def test_what_is_done_stays_done_over_a_restart(self) -> None:
        source = await self.listen()
        await self.publish("a", "b")
        worker = await self.join(source)
        await settle(worker, await self.take(worker, 1), DONE)
        if not self.broker.traits.durable_settle:
            self.skip(f"{self.broker.traits.name} does not settle durably")
        await self.reopen()
        assert len(await self.take_all(await self.join(source))) == 1

    @case
    async def test_later_is_never_early(self) -> None:
        worker = await self.join(await self.listen())
        await self.publish("a")
        await settle(worker, await self.take(worker, 1), Later(self.delay))
        await self.nothing(worker)
        await self.pass_time(self.delay * 0.9)
        await self.nothing(worker)
        await self.pass_time(self.delay * 0.2)
        assert ids(await self.take(worker, 1)) == ["a"]

    @case
    async def test_later_is_counted_as_a_round(self) -> None:
        worker = await self.join(await self.listen())
        await self.publish("a")
        for round_ in range(3):
            delivery = await self.take_one(worker)
            assert delivery.round == round_
            await settle(worker, [delivery], Later(self.delay))
            await self.pass_time(self.delay)

    @case
    async def test_later_forgets_the_crashes(self) -> None:
        source = await self.listen()
        await self.publish("a")
        await self.crash(source)
        worker = await self.join(source)
        await settle(worker, await self.take(worker, 1), Later(self.delay))
        await self.pass_time(self.delay)
        assert (await self.take_one(worker)).crashes == 0

    @case
    async def test_a_message_put_off_frees_its_place_for_others(self) -> None:
        source = await self.listen()
        worker = await self.broker.consume(source, lease=self.lease, prefetch=1)
        await self.publish("a", "b")
        first = await self.take_one(worker)
        await settle(worker, [first], Later(self.delay))
        second = await self.take_one(worker)
        assert {first.message.id, second.message.id} == {"a", "b"}
        await settle(worker, [second], DONE)

    @case
    async def test_a_message_put_off_survives_a_restart_and_is_not_early_after_it(self) -> None:
        source = await self.listen()
        worker = await self.join(source)
        await self.publish("a")
        await settle(worker, await self.take(worker, 1), Later(self.delay * 10))
        await self.reopen()
        worker = await self.join(source)
        await self.nothing(worker)
        await self.pass_time(self.delay * 10)
        delivery = await self.take_one(worker)
        assert (delivery.message.id, delivery.round) == ("a", 1)

    @case
    async def test_a_message_released_is_not_counted(self) -> None:
        worker = await self.join(await self.listen())
        await self.publish("a")
        for _ in range(3):
            delivery = await self.take_one(worker)
            assert (delivery.round, delivery.crashes) == (0, 0)
            await settle(worker, [delivery], Release())

    @case
    async def test_a_release_leaves_the_counts_as_they_are(self) -> None:
        source = await self.listen()
        worker = await self.join(source)
        await self.publish("a")
        await settle(worker, await self.take(worker, 1), Later(0.0))
        await self.crash(source)
        before = await self.take_one(worker)
        await settle(worker, [before], Release())
        after = await self.take_one(worker)
        assert (after.round, after.crashes) == (before.round, before.crashes)

    @case
    async def test_a_release_for_some_time_is_never_early(self) -> None:
        worker = await self.join(await self.listen())
        await self.publish("a")
        await settle(worker, await self.take(worker, 1), Release(self.delay))
        await self.pass_time(self.delay * 0.9)
        await self.nothing(worker)
        await self.pass_time(self.delay * 0.2)
        assert ids(await self.take(worker, 1)) == ["a"]

    @case
    async def test_each_delivery_gets_its_own_verdict(self) -> None:
        source = await self.listen()
        worker = await self.join(source)
        await self.publish("a", "b", "c", "d")
        done, later, dead, released = await self.take(worker, 4)
        await worker.settle(
            [
                (dead, Dead("for the test")),
                (done, DONE),
                (released, Release()),
                (later, Later(self.delay)),
            ]
        )
        assert ids(await self.take_all(worker)) == ids([released])
        await self.pass_time(self.delay)
        assert ids(await self.take_all(worker)) == ids([later])
        letters = await self.join(source, part=Part.DEAD)
        assert ids(await self.take_all(letters)) == ids([dead])

    @case
    async def test_settling_one_does_not_settle_those_before_it(self) -> None:
        source = await self.listen()
        worker = await self.join(source)
        await self.publish("a", "b", "c")
        first, second, third = await self.take(worker, 3)
        await settle(worker, [third], DONE)
        await settle(worker, [first, second], Release())
        assert sorted(await self.finish(worker)) == sorted(ids([first, second]))

    @case
    async def test_a_second_verdict_is_too_late(self) -> None:
        worker = await self.join(await self.listen())
        await self.publish("a")
        delivery = await self.take_one(worker)
        await settle(worker, [delivery], DONE)
        error = await raised(Unsettled, settle(worker, [delivery], Later(0.0)))
        assert error.lost == (delivery,)
        await self.nothing(worker)

    @case
    async def test_settling_nothing_is_no_error(self) -> None:
        worker = await self.join(await self.listen())
        await worker.settle([])

    @case
    async def test_a_refused_settle_can_be_settled_again(self) -> None:
        refusing = self.refuse_settles()
        if refusing is None:
            self.skip(f"{self.broker.traits.name} cannot refuse a settle")
            return
        source = await self.listen()
        worker = await self.join(source)
        await self.publish("a", "b")
        held = await self.take(worker, 2)
        with refusing:
            error = await raised(Unsettled, settle(worker, held, DONE))
        assert set(error.failed) == set(held)
        assert error.lost == ()
        await settle(worker, held, DONE)
        await self.pass_time(self.lease * 2)
        await self.nothing(worker)
