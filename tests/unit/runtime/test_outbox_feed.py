"""The outbox as a feed: order, lanes, fences and back-off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from outbox_kit import SOURCE, STEADY, names, open_feed, put, state
from transaction_parts import bench

from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.ports.broker import Delivery, Unsettled
from callcast.ports.observer import OutboxAged
from callcast.runtime.outbox_consumer import OutboxSettings
from callcast.runtime.outbox_feed import OutboxFeed
from callcast.runtime.owner import this_process
from callcast.testing.clock import ManualClock


async def test_rows_leave_in_order_and_are_marked_once_they_are_done() -> None:
    async with bench() as b, open_feed(b) as (_, consumer):
        await put(b, "x", "y", "z")
        handed = await consumer.fetch(2, 1.0)
        assert names(handed) == ["x", "y"]
        assert [(each.round, each.crashes) for each in handed] == [(0, 0), (0, 0)]
        assert names(await consumer.fetch(2, 1.0)) == ["z"]
        await consumer.settle([(each, DONE) for each in handed])
        assert await state(b) == {"x": 1, "y": 1, "z": 0}
        assert await consumer.fetch(2, 0.0) == ()


async def test_the_next_of_a_key_leaves_when_the_one_before_is_confirmed() -> None:
    async with bench() as b, open_feed(b) as (_, consumer):
        await put(b, "a:1", "a:2", "b:1")
        handed = await consumer.fetch(10, 1.0)
        assert names(handed) == ["a:1", "b:1"]
        assert await consumer.fetch(10, 0.0) == ()
        await consumer.settle([(handed[0], DONE)])
        assert names(await consumer.fetch(10, 1.0)) == ["a:2"]


async def test_a_fetch_that_waits_is_woken_by_a_commit() -> None:
    clock = ManualClock()
    async with bench(clock=clock) as b, open_feed(b, STEADY) as (_, consumer):
        fetching = asyncio.ensure_future(consumer.fetch(10, 60.0))
        while not consumer._nudged.is_set() and not clock._alarms:
            await asyncio.sleep(0)  # until it rests
        await put(b, "x")
        assert names(await asyncio.wait_for(fetching, 10)) == ["x"]  # the clock stood still


async def test_a_row_that_another_process_wrote_is_found_by_polling(tmp_path: Path) -> None:
    path = str(tmp_path / "shop.db")
    async with bench(path) as b, bench(path) as other, open_feed(b) as (_, consumer):
        fetching = asyncio.ensure_future(consumer.fetch(10, 30.0))
        await put(other, "x")
        assert names(await fetching) == ["x"]


async def test_the_poll_slows_down_while_nothing_comes() -> None:
    clock = ManualClock()
    looks: list[float] = []
    async with bench(clock=clock) as b, open_feed(b, STEADY) as (_, consumer):
        look = consumer._read

        async def counted(limit: int, epoch: int) -> Sequence[Delivery]:
            looks.append(clock.now() - 1000.0)
            return await look(limit, epoch)

        consumer._read = counted  # type: ignore[method-assign]
        fetching = asyncio.ensure_future(consumer.fetch(10, 5.0))
        while not fetching.done():
            await asyncio.sleep(0.001)  # the database has threads of its own
            if clock._alarms:
                await clock.advance(clock._alarms[0][0] - clock.now())
        assert await fetching == ()
        gaps = [round(after - before, 2) for before, after in pairwise(looks)]
        assert gaps[:7] == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0]
        assert max(gaps) == 1.0


async def test_what_is_committed_while_rows_are_on_their_way_leaves_together() -> None:
    clock = ManualClock()
    async with bench(clock=clock) as b, open_feed(b, OutboxSettings(gap=0.5)) as (_, consumer):
        await put(b, "x")
        (delivery,) = await consumer.fetch(10, 60.0)
        fetching = asyncio.ensure_future(consumer.fetch(10, 60.0))
        await put(b, "y")
        await put(b, "z")
        await clock.rest()
        assert not fetching.done()
        await consumer.settle([(delivery, DONE)])
        assert names(await asyncio.wait_for(fetching, 10)) == ["y", "z"]


@pytest.mark.parametrize("ends", ["time", "release", "close"])
async def test_a_look_does_not_wait_for_long_for_what_is_on_its_way(ends: str) -> None:
    clock = ManualClock()
    async with bench(clock=clock) as b, open_feed(b, OutboxSettings(gap=0.5)) as (_, consumer):
        await put(b, "x", "y")
        (delivery,) = await consumer.fetch(1, 60.0)
        fetching = asyncio.ensure_future(consumer.fetch(1, 60.0))
        await clock.advance(0.4)
        assert not fetching.done()
        if ends == "time":
            await clock.advance(0.2)
        elif ends == "release":
            await consumer.settle([(delivery, Release())])
        else:
            await consumer.close()
        expected = {"time": ["y"], "release": ["x"], "close": []}[ends]
        assert names(await asyncio.wait_for(fetching, 10)) == expected


async def test_a_row_put_off_waits_and_its_key_and_the_others_do_not() -> None:
    async with bench() as b, open_feed(b) as (feed, consumer):
        await put(b, "a:1", "a:2", "b:1", "b:2")
        first = await consumer.fetch(10, 1.0)
        await consumer.settle([(first[0], Later(60.0, "no route")), (first[1], DONE)])
        assert names(await consumer.fetch(10, 1.0)) == ["b:2"]
        lag = await feed.lag(SOURCE)
        assert (lag.ready, lag.leased, lag.delayed, lag.dead) == (0, 1, 2, 0)


async def test_a_row_tried_before_comes_again_with_its_round() -> None:
    async with bench() as b, open_feed(b) as (_, consumer):
        await put(b, "x")
        for round_ in range(3):
            (delivery,) = await consumer.fetch(10, 5.0)
            assert delivery.round == round_
            await consumer.settle([(delivery, Later(0.001))])
        assert await b.rows("select attempts from callcast_outbox") == [3]


async def test_a_row_that_can_never_be_sent_parks_its_key_and_raises_the_alarm() -> None:
    async with bench() as b, open_feed(b) as (feed, consumer):
        await put(b, "a:1", "a:2", "b:1")
        first = await consumer.fetch(10, 1.0)
        await consumer.settle([(first[0], Dead("too large")), (first[1], DONE)])
        assert await consumer.fetch(10, 0.0) == ()
        assert await state(b) == {"a:1": 2, "a:2": 0, "b:1": 1}
        (fact,) = b.observer.facts
        assert isinstance(fact, OutboxAged)
        assert (fact.service, fact.pending) == ("shop", 2)
        lag = await feed.lag(SOURCE)
        assert (lag.ready, lag.delayed, lag.dead) == (0, 1, 1)


async def test_a_released_row_comes_again_uncounted() -> None:
    async with bench() as b, open_feed(b) as (_, consumer):
        await put(b, "x")
        (delivery,) = await consumer.fetch(10, 1.0)
        await consumer.settle([(delivery, Release())])
        (again,) = await consumer.fetch(10, 1.0)
        assert (again.message.id, again.round) == ("x", 0)


async def test_while_the_broker_is_away_nothing_is_handed_out() -> None:
    clock = ManualClock()
    async with bench(clock=clock) as b, open_feed(b, STEADY) as (_, consumer):
        await put(b, "x", "y")
        (delivery,) = await consumer.fetch(1, 1.0)
        await consumer.settle([(delivery, Release(30.0))])
        await clock.advance(29.0)
        assert await consumer.fetch(1, 0.0) == ()
        await clock.advance(1.5)
        assert names(await consumer.fetch(10, 0.0)) == ["x", "y"]


class TestLanes:
    """One relay at a time, and a fence behind it."""

    async def test_a_second_relay_stands_by_and_takes_over_at_once_when_the_first_closes(
        self, tmp_path: Path
    ) -> None:
        path = str(tmp_path / "shop.db")
        async with bench(path) as b, bench(path) as other, open_feed(other) as (_, standby):
            async with open_feed(b) as (_, consumer):
                await put(b, "x", "y")
                handed = await consumer.fetch(1, 1.0)
                assert await standby.fetch(10, 0.0) == ()
                await consumer.settle([(handed[0], DONE)])
            assert names(await standby.fetch(10, 5.0)) == ["y"]

    async def test_a_stalled_relay_is_replaced_within_its_lease(self, tmp_path: Path) -> None:
        path = str(tmp_path / "shop.db")
        short = OutboxSettings(gap=0.0, lease=0.3, margin=0.1, poll=0.005, poll_max=0.02)
        async with bench(path) as b, bench(path) as other:
            feed = OutboxFeed(b.units, ports=b.ports, tasks=b.tasks, settings=short)
            dead = await feed.consume(SOURCE)
            await put(b, "x")
            (stale,) = await dead.fetch(10, 1.0)
            async with open_feed(other, short) as (_, standby):
                start = other.ports.clock.now()
                (taken,) = await standby.fetch(10, 5.0)
                assert other.ports.clock.now() - start < 0.5
                # The first wakes up again: what it marks changes nothing.
                with pytest.raises(Unsettled) as caught:
                    await dead.settle([(stale, DONE)])
                assert caught.value.lost == (stale,)
                assert await state(b) == {"x": 0}
                await standby.settle([(taken, DONE)])
                assert await state(b) == {"x": 1}
                assert await dead.fetch(10, 0.0) == ()
            await dead.close()

    async def test_a_relay_whose_process_died_is_replaced_at_once(self) -> None:
        child = subprocess.run(
            [sys.executable, "-c", "from callcast.runtime import owner; print(owner.this_process())"],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        async with bench() as b, open_feed(b) as (_, consumer):
            await put(b, "x")
            async with b.database.begin() as session:
                assert await b.units.outbox.take(session, child.stdout.strip(), lease=3600.0) == 1
            assert names(await consumer.fetch(1, 0.0)) == ["x"]
            async with b.database.begin() as session:
                assert not await b.units.outbox.is_mine(session, 1)

    async def test_a_relay_whose_process_lives_is_left_alone(self) -> None:
        async with bench() as b, open_feed(b) as (_, consumer):
            await put(b, "x")
            async with b.database.begin() as session:
                await b.units.outbox.take(session, this_process(), lease=3600.0)
            assert await consumer.fetch(1, 0.0) == ()

    async def test_a_relay_stops_handing_out_before_its_lease_ends(self) -> None:
        clock = ManualClock()
        settings = OutboxSettings(gap=0.0, lease=5.0, margin=1.0)
        async with bench(clock=clock) as b, open_feed(b, settings) as (_, consumer):
            await put(b, "x", "y")
            await consumer.fetch(1, 1.0)
            assert consumer._lease.is_mine(clock.now() + 3.9)
            assert not consumer._lease.is_mine(clock.now() + 4.0)

            async def other_has_it(*_: object) -> bool:
                return False

            b.units.outbox.renew = other_has_it  # type: ignore[method-assign]
            await clock.advance(4.1)
            assert await consumer.fetch(10, 0.0) == ()
            assert consumer._lease.epoch is None

    async def test_a_relay_that_is_late_renews_and_goes_on_when_nobody_took_the_lane(self) -> None:
        clock = ManualClock()
        async with bench(clock=clock) as b, open_feed(b, STEADY) as (_, consumer):
            await put(b, "x", "y")
            (first,) = await consumer.fetch(1, 1.0)
            await clock.advance(100.0)
            (second,) = await consumer.fetch(1, 1.0)
            await consumer.settle([(first, DONE), (second, DONE)])
            assert await state(b) == {"x": 1, "y": 1}

    async def test_renewing_is_for_any_thread_and_extends_the_lease_when_it_is_due(self) -> None:
        clock = ManualClock()
        async with bench(clock=clock) as b, open_feed(b, STEADY) as (_, consumer):
            await put(b, "x")
            handed = await consumer.fetch(1, 1.0)
            await asyncio.to_thread(consumer.renew, handed)
            await asyncio.sleep(0)
            assert not consumer._is_renewing  # not due yet
            await clock.advance(3.0)
            await asyncio.to_thread(consumer.renew, handed)
            await asyncio.to_thread(consumer.renew, handed)
            while not consumer._lease.is_mine(clock.now() + 3.9):
                await asyncio.sleep(0.001)
            consumer.renew(())

    async def test_verdicts_are_settled_under_the_epoch_they_were_handed_out_in(self) -> None:
        async with bench() as b, open_feed(b) as (_, consumer):
            await put(b, "x")
            (stale,) = await consumer.fetch(1, 1.0)
            async with b.database.begin() as session:
                await b.units.outbox.renew(session, 1, -5.0)
                assert await b.units.outbox.take(session, "other", lease=-1.0) == 2
            with pytest.raises(Unsettled):
                await consumer.settle([(stale, DONE)])
            (mine,) = await consumer.fetch(1, 1.0)
            with pytest.raises(Unsettled) as caught:
                await consumer.settle([(stale, DONE)])
            assert caught.value.lost == (stale,)
            await consumer.settle([(mine, DONE)])
            assert await state(b) == {"x": 1}

    async def test_a_lane_that_is_renewed_too_late_is_another_relays(self) -> None:
        clock = ManualClock()
        async with bench(clock=clock) as b, open_feed(b, STEADY) as (_, consumer):
            await put(b, "x")
            handed = await consumer.fetch(1, 1.0)
            async with b.database.begin() as session:
                await b.units.outbox.renew(session, 1, -5.0)
                await b.units.outbox.take(session, "other", lease=5.0)
            await clock.advance(3.0)
            consumer.renew(handed)
            while consumer._lease.epoch is not None:
                await asyncio.sleep(0.001)
            assert not await consumer._renew()
