"""Transactions outside a handler, and what a handler's transaction is made of."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from transaction_parts import CHARGE, MAIL, PACKED, PLACED, Tracing, bench

from callcast.core.context import AMBIENT, Context
from callcast.core.errors import CommitUnknown, Duplicate, Misuse
from callcast.core.message import Message
from callcast.runtime.replies import REPLY_TO
from callcast.runtime.transaction import AMBIENT_TRANSACTION, SERVICE, Transaction
from callcast.runtime.unit import SENDS_MAX
from callcast.stores.inbox import Arrival
from callcast.stores.outbox import KEY_SEQ
from callcast.testing.faults import Faults, InjectedError

ARRIVAL = Arrival("warehouse", "orders", "m-1", b"hash")


async def test_rows_and_messages_commit_together_and_wake_the_relay() -> None:
    woken: list[str] = []
    async with bench() as b:
        b.units.on_commit(lambda: woken.append("relay"))
        async with b.units.open() as tx:
            assert not tx.is_open
            first = await tx.publish(PACKED, "a")
            assert not tx.is_open  # sending alone holds no lock
            assert await tx.execute("insert into ledger values ('x')") == 1
            assert tx.is_open
            assert await tx.fetch("select note from ledger") == [("x",)]
            second = await tx.cast(MAIL, "hello", id="mine")
            assert not woken
        assert not tx.is_open
        assert await b.ledger() == ["x"]
        assert await b.sent() == [first, second] == ["new-1", "mine"]
        assert woken == ["relay"]
        assert await b.units.pending() == 2


async def test_an_error_takes_rows_and_messages_back() -> None:
    woken: list[str] = []
    async with bench() as b:
        b.units.on_commit(lambda: woken.append("relay"))
        with pytest.raises(ValueError, match="no"):
            async with b.units.open() as tx:
                await tx.execute("insert into ledger values ('x')")
                await tx.publish(PACKED, "a")
                raise ValueError("no")
        assert await b.ledger() == []
        assert await b.sent() == []
        assert woken == []


async def test_a_block_that_only_sends_commits_what_it_sent() -> None:
    async with bench() as b:
        async with b.units.open() as tx:
            await tx.publish(PACKED, "a")
        assert await b.sent() == ["new-1"]


async def test_an_empty_block_does_not_touch_the_database() -> None:
    async with bench() as b:
        await b.database.close()
        async with b.units.open():
            pass


async def test_a_transaction_ends_with_its_block() -> None:
    async with bench() as b:
        async with b.units.open() as tx:
            await tx.execute("insert into ledger values ('x')")
        for late in (
            tx.execute("insert into ledger values ('y')"),
            tx.fetch("select 1"),
            tx.publish(PACKED, "late"),
            tx.connection(sqlite3.Connection),
        ):
            with pytest.raises(Misuse, match="has ended"):
                await late
        assert await b.ledger() == ["x"]
        assert await b.sent() == []


async def test_the_drivers_own_connection_is_given_by_its_type() -> None:
    async with bench() as b:
        async with b.units.open() as tx:
            connection = await tx.connection(sqlite3.Connection)
            connection.execute("insert into ledger values ('x')")
            with pytest.raises(Misuse, match=r"this database has a sqlite3\.Connection"):
                await tx.connection(dict)
        assert await b.ledger() == ["x"]


async def test_a_lost_reply_to_commit_is_unknown_and_the_rows_are_there() -> None:
    faults = Faults({"session.committed@2": "raise"})  # the first is of the tables
    async with bench(failpoints=faults) as b:
        with pytest.raises(CommitUnknown):
            async with b.units.open() as tx:
                await tx.execute("insert into ledger values ('x')")
                await tx.publish(PACKED, "a")
        assert await b.ledger() == ["x"]
        assert await b.sent() == ["new-1"]


@pytest.mark.parametrize("place", ["outbox.after_business_write", "outbox.before_commit"])
async def test_what_fails_before_the_commit_leaves_neither_row(place: str) -> None:
    async with bench(failpoints=Faults({place: "raise"})) as b:
        with pytest.raises(InjectedError):
            async with b.units.open() as tx:
                await tx.execute("insert into ledger values ('x')")
                await tx.publish(PACKED, "a")
        assert await b.ledger() == []
        assert await b.sent() == []
        async with b.database.begin(wait=0.1):
            pass  # the lock is free


async def test_children_of_one_block_share_the_transaction_they_begin_side_by_side() -> None:
    async with bench() as b:
        async with b.units.open() as tx:
            await asyncio.gather(
                *(tx.execute("insert into ledger values (?)", n) for n in range(5))
            )
        assert sorted(map(str, await b.ledger())) == ["0", "1", "2", "3", "4"]


async def test_the_ambient_transaction_is_that_of_the_innermost_block() -> None:
    async with bench() as b:
        assert AMBIENT_TRANSACTION.get() is None
        async with b.units.open() as outer:
            assert AMBIENT_TRANSACTION.get() is outer
            async with b.units.open() as inner:
                assert AMBIENT_TRANSACTION.get() is inner
            assert AMBIENT_TRANSACTION.get() is outer
        assert AMBIENT_TRANSACTION.get() is None


async def test_keyed_messages_keep_their_order_and_are_numbered() -> None:
    async with bench() as b:
        async with b.units.open() as tx:
            for value in ("b:1", "a:1", "b:2", "a:2"):
                await tx.publish(PLACED, value, id=value)
        rows = await b.database.read(
            "select message_id, key, key_seq from callcast_outbox order by id"
        )
        assert rows == [("a:1", "a", 1), ("a:2", "a", 2), ("b:1", "b", 1), ("b:2", "b", 2)]
        entries = await b.units.outbox.due(b.database, 10, retried=10)
        assert [e.message.headers for e in entries] == [{KEY_SEQ: "1"}, {KEY_SEQ: "1"}]


async def test_a_cast_names_the_service_whose_queue_must_exist_and_where_to_answer() -> None:
    async with bench() as b:
        done = type(PACKED)("payments.charged", int)
        async with b.units.open() as tx:
            await tx.cast(CHARGE, 7, reply_to=done)
            await tx.cast(MAIL, "hello", headers={"own": "1"})
        charge, mail = [e.message for e in await b.units.outbox.due(b.database, 10, retried=10)]
        assert charge.headers[SERVICE] == "payments"
        assert charge.headers[REPLY_TO] == "payments.charged"
        assert charge.body == b"7"
        assert dict(mail.headers) == {SERVICE: "mail", "own": "1"}


async def test_a_message_of_a_traced_program_carries_the_trace_it_was_sent_in() -> None:
    observer = Tracing()
    async with bench(observer=observer) as b:
        async with b.units.open() as tx:
            await tx.publish(PACKED, "a")
        (entry,) = await b.units.outbox.due(b.database, 10, retried=10)
        assert entry.message.traceparent == "00-trace"
        assert entry.message.headers["baggage"] == "b=1"
        assert [work.name for work in observer.begun] == ["orders.packed"]


async def test_a_transaction_sends_a_bounded_number_of_messages() -> None:
    async with bench() as b:
        with pytest.raises(Misuse, match="commit in between"):
            async with b.units.open() as tx:
                for _ in range(SENDS_MAX + 1):
                    await tx.send(Message("1", "shop", "a", "a", b""))
        assert await b.sent() == []


class TestDerivedIds:
    """A rerun of a handler sends under the same ids, and others do not."""

    async def ids(self, arrival: Arrival, *values: str, context: str = "m-1") -> list[str]:
        async with bench() as b:
            token = AMBIENT.set(Context(context, "c-1"))
            try:
                tx = b.units.transaction(b.units.unit(arrival))
                return [await tx.publish(PLACED, value) for value in values]
            finally:
                AMBIENT.reset(token)

    async def test_the_same_run_again_sends_the_same_ids(self) -> None:
        first = await self.ids(ARRIVAL, "a:1", "a:2", "a:1")
        again = await self.ids(ARRIVAL, "a:1", "a:2", "a:1")
        assert first == again
        assert len(set(first)) == 3  # the same content twice is two messages

    async def test_the_order_of_different_sends_does_not_matter(self) -> None:
        assert sorted(await self.ids(ARRIVAL, "a:1", "b:1")) == sorted(
            await self.ids(ARRIVAL, "b:1", "a:1")
        )

    @pytest.mark.parametrize(
        "other",
        [
            Arrival("mail", "orders", "m-1", b"hash"),
            Arrival("warehouse", "shop", "m-1", b"hash"),
            Arrival("warehouse", "orders", "m-2", b"hash"),
        ],
    )
    async def test_another_consumer_source_or_message_sends_other_ids(self, other: Arrival) -> None:
        assert await self.ids(ARRIVAL, "a:1") != await self.ids(other, "a:1")

    async def test_an_id_of_the_handlers_own_is_kept(self) -> None:
        async with bench() as b:
            tx = b.units.transaction(b.units.unit(ARRIVAL))
            assert await tx.publish(PLACED, "a:1", id="mine") == "mine"

    async def test_the_ids_are_pinned_for_ever(self) -> None:
        """A change would make the rerun of a message under way send twice."""
        assert await self.ids(ARRIVAL, "a:1") == ["a33aea63-515d-571f-a25d-6e004d444977"]


class TestTwins:
    """What a unit does when its message was handled elsewhere meanwhile."""

    async def test_the_first_use_of_the_transaction_leaves_by_duplicate(self) -> None:
        async with bench() as b:
            first, second = b.units.unit(ARRIVAL), b.units.unit(ARRIVAL)
            await b.units.commit(first)
            tx = b.units.transaction(second)
            for _ in range(2):  # it refuses further use
                with pytest.raises(Duplicate):
                    await tx.execute("insert into ledger values ('x')")
            with pytest.raises(Duplicate):
                await tx.publish(PACKED, "a")
            with pytest.raises(Duplicate):
                await b.units.commit(second)
            await second.roll_back(ValueError())
            assert second.seen is not None
            assert await b.ledger() == []

    async def test_a_begin_that_fails_leaves_the_unit_as_it_was(self) -> None:
        async with bench(failpoints=Faults({"inbox.after_insert@1": "raise"})) as b:
            unit = b.units.unit(ARRIVAL)
            tx = Transaction(unit, b.units._envelopes, b.ports)
            with pytest.raises(InjectedError):
                await tx.execute("insert into ledger values ('x')")
            assert not tx.is_open
            await tx.execute("insert into ledger values ('y')")
            await b.units.commit(unit)
            assert await b.ledger() == ["y"]
