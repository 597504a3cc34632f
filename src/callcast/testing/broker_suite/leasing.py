"""Workers that die, hang or come back: leases, crashes and fences."""

from __future__ import annotations

import asyncio

from callcast.core.outcome import DONE, Later
from callcast.ports.broker import Unsettled
from callcast.testing.broker_suite.harness import Harness, case, ids, long_case, raised, settle


class Leasing(Harness):
    """Cases about the lease on what was fetched."""

    @case
    async def test_what_a_dead_worker_held_comes_back(self) -> None:
        source = await self.listen()
        sent = await self.publish("a", "b", "c")
        await self.take(await self.join(source), 3)  # and dies
        await self.pass_time(self.lease * 1.1)
        assert sorted(ids(await self.take(await self.join(source), 3))) == sent

    @case
    async def test_a_waiting_fetch_wakes_when_a_lease_ends(self) -> None:
        source = await self.listen()
        await self.publish("a")
        await self.take(await self.join(source), 1)  # and dies
        waiting = self.start((await self.join(source)).fetch(10, 1_000_000.0))
        await self.pass_time(self.lease * 1.1)
        assert ids(await waiting) == ["a"]

    @long_case
    async def test_crashes_are_counted_exactly(self) -> None:
        source = await self.listen()
        await self.publish("neighbour", "poison")
        worker = await self.join(source)
        taken = {one.message.id: one for one in await self.take(worker, 2)}
        await settle(worker, [taken["neighbour"]], DONE)
        for crashes in range(1, 11):  # the worker has died with it so many times
            await self.pass_time(self.lease * 1.1)
            delivery = await self.take_one(await self.join(source))
            assert (delivery.message.id, delivery.crashes) == ("poison", crashes)

    @case
    async def test_a_renewed_lease_holds(self) -> None:
        source = await self.listen()
        await self.publish("a")
        worker = await self.join(source)
        held = await self.take(worker, 1)
        other = await (await self.another()).consume(source, lease=self.lease)
        for _ in range(4):
            await self.pass_time(self.lease * 0.6)
            worker.renew(held)
            await self.nothing(other)
        await settle(worker, held, DONE)
        await self.pass_time(self.lease * 2)
        await self.nothing(other)

    @case
    async def test_a_lease_is_renewed_from_another_thread(self) -> None:
        source = await self.listen()
        await self.publish("a")
        worker = await self.join(source)
        held = await self.take(worker, 1)
        await self.pass_time(self.lease * 0.6)
        await asyncio.to_thread(worker.renew, held)
        await self.pass_time(self.lease * 0.6)
        await self.nothing(await self.join(source))
        await settle(worker, held, DONE)

    @case
    async def test_only_what_is_named_is_renewed(self) -> None:
        source = await self.listen()
        await self.publish("a", "b", "c")
        worker = await self.join(source)
        first, second, third = await self.take(worker, 3)
        await self.pass_time(self.lease * 0.6)
        worker.renew([second])
        await self.pass_time(self.lease * 0.6)
        back = await self.take_all(await self.join(source))
        assert sorted(ids(back)) == sorted(ids([first, third]))
        await settle(worker, [second], DONE)

    @case
    async def test_a_settle_after_the_lease_is_refused_and_changes_nothing(self) -> None:
        source = await self.listen()
        await self.publish("a")
        slow = await self.join(source)
        [stale] = await self.take(slow, 1)
        await self.pass_time(self.lease * 1.1)
        quick = await self.join(source)
        [fresh] = await self.take(quick, 1)
        error = await raised(Unsettled, settle(slow, [stale], DONE))
        assert error.lost == (stale,)
        assert error.failed == ()
        await settle(quick, [fresh], Later(self.delay))  # it is still the second worker's
        await self.pass_time(self.delay)
        assert ids(await self.take_all(quick)) == ["a"]

    @case
    async def test_a_stale_verdict_does_not_spoil_the_others_of_its_call(self) -> None:
        source = await self.listen()
        await self.publish("a", "b")
        slow = await self.join(source)
        first, second = await self.take(slow, 2)
        await self.pass_time(self.lease * 0.6)
        slow.renew([second])
        await self.pass_time(self.lease * 0.6)
        quick = await self.join(source)
        back = await self.take(quick, 1)
        error = await raised(Unsettled, settle(slow, [first, second], DONE))
        assert error.lost == (first,)
        await settle(quick, back, DONE)
        await self.pass_time(self.lease * 2)
        await self.nothing(quick)

    @case
    async def test_renewing_a_lost_lease_does_not_take_it_from_its_new_owner(self) -> None:
        source = await self.listen()
        await self.publish("a")
        slow = await self.join(source)
        stale = await self.take(slow, 1)
        await self.pass_time(self.lease * 1.1)
        quick = await self.join(source)
        fresh = await self.take(quick, 1)
        slow.renew(stale)
        await settle(quick, fresh, DONE)
        await self.pass_time(self.lease * 2)
        await self.nothing(quick)
