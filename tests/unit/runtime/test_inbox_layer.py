"""The inbox layer: once, whoever delivers twice, and whatever fails in between."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from inbox_kit import inbox, pack
from msgspec.structs import replace
from transaction_parts import (
    PACKED,
    PLACED,
    Bench,
    bench,
    consumed,
    incoming,
    transaction_of,
)

from callcast.core.errors import Busy, CommitUnknown, Misuse, Unavailable
from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.core.work import Next, Work
from callcast.ports.observer import DuplicateSeen
from callcast.runtime.inbox import RUN_UNKNOWN, Inbox
from callcast.runtime.sweeper import sweep
from callcast.runtime.transaction import AMBIENT_TRANSACTION
from callcast.stores.inbox import Arrival
from callcast.testing.faults import Faults, InjectedError


async def test_a_message_is_handled_once_with_everything_in_one_commit() -> None:
    async with bench() as b:
        layer = inbox(b)
        assert await layer(consumed(incoming()), pack) == DONE
        assert await layer(consumed(incoming()), pack) == DONE
        assert await b.ledger() == ["m-1"]
        assert len(await b.sent()) == 1
        assert b.observer.facts == [DuplicateSeen(consumer="warehouse", message_id="m-1")]


async def test_a_handler_that_does_not_touch_its_transaction_is_handled_once_as_well() -> None:
    ran: list[str] = []

    async def look(work: Work) -> Outcome:
        ran.append(work.id)
        assert AMBIENT_TRANSACTION.get() is work.transaction
        return DONE

    async with bench() as b:
        for _ in range(2):
            assert await inbox(b)(consumed(incoming()), look) == DONE
        assert ran == ["m-1"]
        assert AMBIENT_TRANSACTION.get() is None


async def test_another_group_handles_the_same_message() -> None:
    async with bench() as b:
        await inbox(b)(consumed(incoming()), pack)
        await Inbox(b.units, "mail", PLACED)(consumed(incoming()), pack)
        assert await b.ledger() == ["m-1", "m-1"]
        assert len(set(await b.sent())) == 2


async def test_a_handler_that_fails_leaves_nothing_and_runs_again_under_the_same_ids() -> None:
    sent: list[str] = []

    async def fail(work: Work) -> Outcome:
        tx = transaction_of(work)
        await tx.execute("insert into ledger values ('half')")
        sent.append(await tx.publish(PACKED, work.id))
        if len(sent) == 1:
            raise ValueError("half way")
        return DONE

    async with bench() as b:
        with pytest.raises(ValueError, match="half way"):
            await inbox(b)(consumed(incoming()), fail)
        assert await b.ledger() == []
        assert await b.rows("select 1 from callcast_inbox") == []
        assert await inbox(b)(consumed(incoming()), fail) == DONE
        assert await b.ledger() == ["half"]
        assert await b.sent() == [sent[0]] == [sent[1]]


@pytest.mark.parametrize("outcome", [Later(1.0), Dead("no"), Release()])
async def test_what_is_not_done_is_rolled_back(outcome: Outcome) -> None:
    async def not_done(work: Work) -> Outcome:
        await pack(work)
        return outcome

    async with bench() as b:
        assert await inbox(b)(consumed(incoming()), not_done) == outcome
        assert await b.ledger() == []


async def test_a_message_without_an_id_is_dead() -> None:
    async with bench() as b:
        assert await inbox(b)(consumed(incoming("")), pack) == Dead("missing_id")
        assert await b.ledger() == []


async def test_an_id_that_comes_again_with_another_payload_is_dead() -> None:
    async with bench() as b:
        await inbox(b)(consumed(incoming()), pack)
        assert await inbox(b)(consumed(incoming(body=b'"a:2"')), pack) == Dead("id_reuse")
        assert await b.ledger() == ["m-1"]
        assert b.observer.facts == []


async def test_a_cancelled_handler_leaves_nothing_and_holds_no_lock() -> None:
    started = asyncio.Event()

    async def hang(work: Work) -> Outcome:
        await pack(work)
        started.set()
        await asyncio.Event().wait()
        return DONE

    async with bench() as b:
        task = asyncio.ensure_future(inbox(b)(consumed(incoming()), hang))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await b.ledger() == []
        async with b.database.begin(wait=0.1):
            pass


async def test_an_unknown_commit_is_released_and_the_redelivery_finds_out() -> None:
    faults = Faults({"session.committed@2": "raise"})
    async with bench(failpoints=faults) as b:
        outcome = await inbox(b)(consumed(incoming()), pack)
        assert isinstance(outcome, Release)
        assert 0.1 <= outcome.after <= 1.0
        assert await inbox(b)(consumed(incoming()), pack) == DONE
        assert await b.ledger() == ["m-1"]


async def test_an_unknown_commit_of_another_transaction_is_the_handlers_error() -> None:
    async with bench() as b:

        async def handle(_work: Work) -> Outcome:
            raise CommitUnknown("elsewhere")

        with pytest.raises(CommitUnknown, match="elsewhere"):
            await inbox(b)(consumed(incoming()), handle)


async def test_a_lock_that_does_not_come_is_busy(tmp_path: Path) -> None:
    path = str(tmp_path / "shop.db")
    async with bench(path, wait=0.02) as b:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        with pytest.raises(Busy):
            await inbox(b)(consumed(incoming()), pack)
        other.execute("rollback")
        other.close()
        assert await inbox(b)(consumed(incoming()), pack) == DONE
        assert await b.ledger() == ["m-1"]


async def test_a_database_that_is_away_is_unavailable_before_the_handler_runs() -> None:
    async def never(_work: Work) -> Outcome:
        raise AssertionError("it ran")

    async with bench() as b:

        async def away(*_: object) -> object:
            raise Unavailable("away")

        b.units.inbox.find = away  # type: ignore[method-assign,assignment]
        with pytest.raises(Unavailable):
            await inbox(b)(consumed(incoming()), never)


async def test_eight_copies_at_once_have_one_effect(tmp_path: Path) -> None:
    async with bench(str(tmp_path / "shop.db")) as b:
        outcomes = await asyncio.gather(*(inbox(b)(consumed(incoming()), pack) for _ in range(8)))
        assert outcomes == [DONE] * 8
        assert await b.ledger() == ["m-1"]
        assert len(await b.sent()) == 1


async def test_a_holder_that_fails_lets_the_waiting_copy_run() -> None:
    async with bench() as b:
        inside, go = asyncio.Event(), asyncio.Event()

        async def holder(work: Work) -> Outcome:
            await pack(work)
            inside.set()
            await go.wait()
            raise ValueError("dead")

        first = asyncio.ensure_future(inbox(b)(consumed(incoming()), holder))
        await inside.wait()
        second = asyncio.ensure_future(inbox(b)(consumed(incoming()), pack))
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(ValueError, match="dead"):
            await first
        assert await second == DONE
        assert await b.ledger() == ["m-1"]


async def nothing_waits() -> float:
    return 0.0


class TestAfterThePurge:
    """A redriven message whose row may be gone is not run again silently."""

    async def purged(self, b: Bench) -> None:
        await inbox(b)(consumed(incoming(time=b.ports.clock.wall() - 100)), pack)
        async with b.database.begin() as session:
            await session.execute("update callcast_inbox set processed_at = processed_at - 100")
        assert await sweep(b.units, "warehouse", retention=10.0, oldest=nothing_waits) == 1

    async def test_a_redriven_message_older_than_the_watermark_is_unknown(self) -> None:
        async with bench() as b:
            await self.purged(b)
            old = incoming(time=b.ports.clock.wall() - 100, group="warehouse")
            assert await inbox(b)(consumed(old), pack) == Dead("unknown after purge")
            assert await b.ledger() == ["m-1"]

    async def test_unless_its_operator_says_so(self) -> None:
        async with bench() as b:
            await self.purged(b)
            old = incoming(
                time=b.ports.clock.wall() - 100, group="warehouse", headers={RUN_UNKNOWN: "1"}
            )
            assert await inbox(b)(consumed(old), pack) == DONE
            assert await b.ledger() == ["m-1", "m-1"]

    async def test_a_message_that_merely_waited_runs(self) -> None:
        async with bench() as b:
            await self.purged(b)
            waited = incoming("m-2", time=b.ports.clock.wall() - 100)
            assert await inbox(b)(consumed(waited), pack) == DONE

    async def test_a_young_redriven_message_runs(self) -> None:
        async with bench() as b:
            await self.purged(b)
            young = incoming("m-2", time=b.ports.clock.wall(), group="warehouse")
            assert await inbox(b)(consumed(young), pack) == DONE

    async def test_the_purge_never_passes_the_oldest_message_that_waits(self) -> None:
        async def waits() -> float:
            return 1_000.0

        async with bench() as b:
            await inbox(b)(consumed(incoming()), pack)
            async with b.database.begin() as session:
                await session.execute("update callcast_inbox set processed_at = processed_at - 100")
            assert await sweep(b.units, "warehouse", retention=10.0, oldest=waits) == 0
            assert await sweep(b.units, "warehouse", retention=10.0, oldest=nothing_waits) == 1

    async def test_the_purge_goes_on_batch_by_batch(self) -> None:
        async with bench() as b:
            async with b.database.begin() as session:
                for number in range(1001):
                    arrival = Arrival("warehouse", "orders", str(number), b"")
                    await b.units.inbox.enter(session, arrival)
                await session.execute("update callcast_inbox set processed_at = processed_at - 100")
            assert await sweep(b.units, "warehouse", retention=10.0, oldest=nothing_waits) == 1001
            assert await b.rows("select 1 from callcast_inbox") == []


async def test_consumed_work_without_a_message_is_misuse() -> None:
    async with bench() as b:
        with pytest.raises(Misuse, match="without a message"):
            await inbox(b)(replace(consumed(incoming()), message=None), pack)


@pytest.mark.parametrize(
    "place",
    [
        "inbox.delivered",
        "inbox.after_insert",
        "inbox.mid_handler",
        "inbox.before_commit",
        "outbox.after_business_write",
        "outbox.before_commit",
    ],
)
async def test_whatever_fails_before_the_commit_a_rerun_has_one_effect(place: str) -> None:
    async with bench(failpoints=Faults({f"{place}@1": "raise"})) as b:
        with pytest.raises(InjectedError):
            await inbox(b)(consumed(incoming()), pack)
        assert await b.ledger() == []
        assert await inbox(b)(consumed(incoming()), pack) == DONE
        assert await b.ledger() == ["m-1"]
        assert len(await b.sent()) == 1


def test_the_layer_fits_both_chains() -> None:
    """Typed by its use: mypy reads this function."""

    async def both(layer: Inbox, work: Work, done: Next[Outcome], answer: Next[object]) -> None:
        outcome: Outcome = await layer(work, done)
        result: object = await layer(work, answer)
        del outcome, result

    assert both is not None
