"""The outbox as a feed when its database is in trouble, and its upkeep: cleaning, alarms, closing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from outbox_kit import SOURCE, STEADY, names, open_feed, put, state
from transaction_parts import bench

from callcast.core.errors import (
    Busy,
    Misuse,
    Unavailable,
)
from callcast.core.message import Message
from callcast.core.outcome import DONE
from callcast.ports.broker import Delivery, Part, Unsettled
from callcast.ports.observer import OutboxAged
from callcast.runtime.outbox_consumer import OutboxSettings
from callcast.testing.clock import ManualClock
from callcast.testing.faults import Faults


class TestTrouble:
    """A database that is busy, full or away; a COMMIT whose reply is lost."""

    async def test_a_mark_that_failed_is_still_ours_and_is_settled_again(self) -> None:
        faults = Faults({"session.committed@4": "raise"})  # tables, row, lane, mark
        async with bench(failpoints=faults) as b, open_feed(b) as (_, consumer):
            await put(b, "x")
            consumer._tidy_at = b.ports.clock.now() + 60.0
            (delivery,) = await consumer.fetch(1, 1.0)
            with pytest.raises(Unsettled, match="lost") as caught:
                await consumer.settle([(delivery, DONE)])
            assert caught.value.failed == (delivery,)
            assert await consumer.fetch(1, 0.0) == ()  # still out
            await consumer.settle([(delivery, DONE)])
            assert await state(b) == {"x": 1}

    async def test_a_lane_that_cannot_be_taken_now_is_taken_later(self, tmp_path: Path) -> None:
        async with bench() as b, open_feed(b) as (_, consumer):
            await put(b, "x")
            begin, calls = b.database.begin, []

            def busy(*, wait: float = 5.0, is_durable: bool = True) -> object:
                calls.append(wait)
                if len(calls) < 4:
                    raise Busy("no")
                return begin(wait=wait, is_durable=is_durable)

            b.database.begin = busy  # type: ignore[method-assign,assignment]
            assert names(await consumer.fetch(1, 10.0)) == ["x"]
            assert len(calls) >= 4

    async def test_a_renewal_that_fails_is_tried_again(self) -> None:
        clock = ManualClock()
        async with bench(clock=clock) as b, open_feed(b, STEADY) as (_, consumer):
            await put(b, "x", "y")
            await consumer.fetch(1, 1.0)
            renew, calls = b.units.outbox.renew, []

            async def away(session: object, epoch: int, lease: float) -> bool:
                calls.append(epoch)
                if len(calls) == 1:
                    raise Unavailable("away")
                return await renew(session, epoch, lease)  # type: ignore[arg-type]

            b.units.outbox.renew = away  # type: ignore[method-assign]
            await clock.advance(4.5)
            assert await consumer.fetch(1, 0.0) == ()
            assert names(await consumer.fetch(1, 0.0)) == ["y"]

    async def test_a_database_that_is_away_is_said_by_fetch(self) -> None:
        async with bench() as b, open_feed(b) as (_, consumer):

            async def away(*_: object, **__: object) -> object:
                raise Unavailable("away")

            b.units.outbox.due = away  # type: ignore[method-assign,assignment]
            with pytest.raises(Unavailable):
                await consumer.fetch(1, 1.0)

    async def test_a_cancelled_fetch_hands_over_nothing(self) -> None:
        async with bench() as b, open_feed(b) as (_, consumer):
            await put(b, "x")
            for turns in range(30):
                fetching = asyncio.ensure_future(consumer.fetch(1, 1.0))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if fetching.done():
                    break
                fetching.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await fetching
                assert consumer.count == 0
            else:
                fetching = asyncio.ensure_future(consumer.fetch(1, 1.0))
            assert names(await fetching) == ["x"]

    async def test_a_lane_that_was_taken_unknowingly_is_taken_again_at_once(self) -> None:
        async with bench() as b, open_feed(b) as (_, consumer):
            await put(b, "x")
            async with b.database.begin() as session:  # and then a cancellation came
                await b.units.outbox.take(session, consumer._owner, lease=3600.0)
            assert names(await consumer.fetch(1, 0.0)) == ["x"]

    async def test_two_relays_of_one_process_are_not_taken_for_each_other(self) -> None:
        async with bench() as b, open_feed(b) as (_, first), open_feed(b) as (_, second):
            await put(b, "x", "y")
            assert names(await first.fetch(1, 1.0)) == ["x"]
            assert await second.fetch(1, 0.0) == ()

    async def test_a_row_settled_while_a_look_is_under_way_is_not_handed_out_twice(self) -> None:
        async with bench() as b, open_feed(b) as (_, consumer):
            await put(b, "x")
            (delivery,) = await consumer.fetch(1, 1.0)
            due = b.units.outbox.due

            async def slow(*args: object, **hidden: object) -> object:
                entries = await due(*args, **hidden)  # type: ignore[arg-type]
                await consumer.settle([(delivery, DONE)])
                return entries

            b.units.outbox.due = slow  # type: ignore[method-assign,assignment]
            assert await consumer.fetch(1, 0.0) == ()


class TestUpkeep:
    """Cleaning, alarms, closing."""

    async def test_published_rows_are_kept_and_then_deleted_in_batches(self) -> None:
        settings = OutboxSettings(gap=0.0, retention=10.0, tidy=0.0, tidy_batch=2)
        async with bench() as b, open_feed(b, settings) as (_, consumer):
            await put(b, "1", "2", "3", "4")
            handed = await consumer.fetch(3, 1.0)
            await consumer.settle([(each, DONE) for each in handed])
            await consumer.fetch(1, 0.0)
            assert len(await state(b)) == 4
            async with b.database.begin() as session:
                await session.execute("update callcast_outbox set published_at = published_at - 20")
            await consumer.fetch(1, 0.0)
            assert len(await state(b)) == 2
            await consumer.fetch(1, 0.0)
            assert await state(b) == {"4": 0}

    async def test_rows_that_nobody_relays_raise_the_alarm(self, tmp_path: Path) -> None:
        path = str(tmp_path / "shop.db")
        async with bench(path) as b, bench(path, bus="forgotten") as other:
            await put(other, "x")
            async with b.database.begin() as session:
                await session.execute("update callcast_outbox set created_at = created_at - 90")
            async with open_feed(b) as (feed, consumer):
                assert await consumer.fetch(1, 0.0) == ()  # only its own are relayed
                (fact,) = b.observer.facts
                assert isinstance(fact, OutboxAged)
                assert (fact.service, fact.pending) == ("forgotten", 1)
                assert 90 <= fact.age < 100
                assert (await feed.lag(SOURCE)).ready == 0

    async def test_upkeep_waits_when_the_database_is_busy(self) -> None:
        async with bench() as b, open_feed(b) as (_, consumer):

            async def busy(*_: object, **__: object) -> int:
                raise Busy("no")

            b.units.outbox.clean = busy  # type: ignore[method-assign]
            await put(b, "x")
            assert names(await consumer.fetch(1, 1.0)) == ["x"]

    async def test_close_wakes_a_waiting_fetch_and_is_idempotent(self) -> None:
        async with bench() as b, open_feed(b) as (_, consumer):
            fetching = asyncio.ensure_future(consumer.fetch(1, 60.0))
            await asyncio.sleep(0.01)
            await consumer.close()
            await consumer.close()
            assert await asyncio.wait_for(fetching, 10) == ()
            assert await consumer.fetch(1, 60.0) == ()

    async def test_what_is_settled_after_the_close_is_marked_while_nobody_took_the_lane(
        self,
    ) -> None:
        async with bench() as b, open_feed(b) as (_, consumer):
            await put(b, "x")
            (delivery,) = await consumer.fetch(1, 1.0)
            await consumer.close()
            await consumer.settle([(delivery, DONE)])
            assert await state(b) == {"x": 1}

    async def test_closed_consumers_are_forgotten(self) -> None:
        async with bench() as b, open_feed(b) as (feed, consumer):
            await consumer.close()
            assert feed._consumers == [consumer]
            second = await feed.consume(SOURCE)
            assert feed._consumers == [second]
            await second.close()

    async def test_an_outbox_has_one_part(self) -> None:
        async with bench() as b, open_feed(b) as (feed, consumer):
            with pytest.raises(Misuse, match="no part 'dead'"):
                await feed.consume(SOURCE, part=Part.DEAD)
            with pytest.raises(Misuse, match="elsewhere"):
                await consumer.settle([(Delivery(Message("1", "s", "t", "t", b"")), DONE)])
