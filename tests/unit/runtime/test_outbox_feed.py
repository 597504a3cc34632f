"""The outbox as a feed: order, lanes, fences, back-off, alarms; and the relay that publishes it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from transaction_parts import MAIL, PACKED, PLACED, Bench, bench

from callcast.core.errors import (
    Busy,
    CircuitOpen,
    Misuse,
    NotSent,
    Unanswered,
    Unavailable,
)
from callcast.core.message import Message
from callcast.core.outcome import DONE, Dead, Later, Release
from callcast.core.work import Kind, Work
from callcast.ports.broker import Delivery, Part, Source, Unsettled
from callcast.ports.observer import OutboxAged
from callcast.runtime.outbox_consumer import OutboxConsumer, OutboxSettings
from callcast.runtime.outbox_feed import OutboxFeed
from callcast.runtime.owner import this_process
from callcast.runtime.relay import Relay
from callcast.testing.clock import ManualClock
from callcast.testing.faults import Faults

SOURCE = Source("callcast.outbox", "shop")
QUICK = OutboxSettings(poll=0.005, poll_max=0.02, gap=0.0)
STEADY = OutboxSettings(gap=0.0)


async def put(b: Bench, *values: str) -> None:
    """Publish; what has a colon is keyed by what stands before it."""
    async with b.units.open() as tx:
        for value in values:
            await tx.publish(PLACED if ":" in value else PACKED, value, id=value)


def names(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


@asynccontextmanager
async def open_feed(
    b: Bench, settings: OutboxSettings = QUICK
) -> AsyncIterator[tuple[OutboxFeed, OutboxConsumer]]:
    feed = OutboxFeed(b.units, ports=b.ports, tasks=b.tasks, settings=settings)
    consumer = await feed.consume(SOURCE)
    yield feed, consumer
    await consumer.close()


async def state(b: Bench) -> dict[object, object]:
    rows = await b.database.read("select message_id, state from callcast_outbox")
    return {row[0]: row[1] for row in rows}


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


class TestRelay:
    """Publishing one row: what becomes of each error."""

    def relay(self, b: Bench, error: Exception | None = None) -> tuple[Relay, list[object]]:
        done: list[object] = []

        async def publish(message: Message) -> None:
            if error is not None:
                raise error
            done.append(message.id)

        async def ensure(topics: Sequence[str], sources: Sequence[Source]) -> None:
            done.append((*topics, *map(str, sources)))

        return Relay(b.units, "shop", publish, ports=b.ports, ensure=ensure), done

    def work(self, round_: int = 0, **more: object) -> Work:
        message = Message("1", "shop", "a", "a", b"", **more)  # type: ignore[arg-type]
        return Work(Kind.CONSUME, "callcast.outbox", "1", message=message, round=round_)

    async def test_a_published_row_is_done_and_its_topic_is_made_once(self) -> None:
        async with bench() as b:
            relay, done = self.relay(b)
            assert await relay.run(self.work()) == DONE
            assert await relay.run(self.work()) == DONE
            assert done == [("a",), "1", "1"]

    async def test_the_queue_of_a_cast_is_made_though_its_service_never_ran(self) -> None:
        async with bench() as b:
            relay, done = self.relay(b)
            async with b.units.open() as tx:
                await tx.cast(MAIL, "hello")
            (entry,) = await b.units.outbox.due(b.database, 1, retried=1)
            work = Work(Kind.CONSUME, "callcast.outbox", message=entry.message)
            assert await relay.run(work) == DONE
            assert done == [("mail.send", "mail.send/mail"), entry.message.id]

    @pytest.mark.parametrize(
        "error", [NotSent("unheard"), Unanswered("?"), Unavailable("away"), ValueError("bug")]
    )
    @pytest.mark.parametrize(("round_", "delay"), [(0, 0.075), (3, 0.6), (9, 22.5), (5000, 22.5)])
    async def test_what_may_pass_is_tried_for_ever_ever_more_slowly(
        self, error: Exception, round_: int, delay: float
    ) -> None:
        async with bench() as b:
            relay, _ = self.relay(b, error)
            outcome = await relay.run(self.work(round_))
            assert isinstance(outcome, Later)
            assert outcome.delay == pytest.approx(delay)
            assert str(error) in outcome.reason

    async def test_what_can_never_be_sent_is_dead(self) -> None:
        async with bench() as b:
            relay, _ = self.relay(b, Misuse("too large"))
            outcome = await relay.run(self.work())
            assert isinstance(outcome, Dead)
            assert "too large" in outcome.reason

    @pytest.mark.parametrize(("wait", "expected"), [(7.0, 7.0), (0.0, 0.1), (90.0, 30.0)])
    async def test_an_open_breaker_stops_the_whole_outbox_uncounted(
        self, wait: float, expected: float
    ) -> None:
        async with bench() as b:
            relay, _ = self.relay(b, CircuitOpen("open", retry_after=wait))
            outcome = await relay.run(self.work())
            assert isinstance(outcome, Release)
            assert outcome.after == expected

    async def test_work_without_a_message_is_dead(self) -> None:
        async with bench() as b:
            relay, _ = self.relay(b)
            assert isinstance(await relay.run(Work(Kind.CONSUME, "x")), Dead)

    async def test_the_worker_relays_everything_while_one_key_is_poisoned(
        self, tmp_path: Path
    ) -> None:
        """O15: the others go on, the key is parked, the alarm is raised."""
        async with bench(str(tmp_path / "shop.db")) as b:
            sent: list[str] = []
            all_there = asyncio.Event()

            async def publish(message: Message) -> None:
                if message.key == "bad":
                    raise Misuse("too large")
                sent.append(message.id)
                if len(sent) == 60:
                    all_there.set()

            async def ensure(*_: object) -> None: ...

            relay = Relay(b.units, "shop", publish, ports=b.ports, ensure=ensure)
            worker = relay.worker(b.tasks, settings=QUICK)
            await worker.start()
            for number in range(20):
                await put(b, f"a:{number}", f"b:{number}", f"bad:{number}", f"c{number}")
            await asyncio.wait_for(all_there.wait(), 30)
            await worker.drain(b.ports.clock.now() + 10.0)
            for key in "ab":
                own = [name for name in sent if name.startswith(f"{key}:")]
                assert own == [f"{key}:{number}" for number in range(20)]
            states = await b.rows("select count(*) from callcast_outbox group by state")
            assert states == [19, 60, 1]
            assert any(isinstance(fact, OutboxAged) for fact in b.observer.facts)
