"""The inbox layer on calls: it keeps the answer of a once=True operation and repeats it."""

from __future__ import annotations

import pytest
from inbox_kit import never
from msgspec.structs import replace
from transaction_parts import (
    CHARGE,
    MAIL,
    Bench,
    bench,
    transaction_of,
)

from callcast.core.errors import CommitUnknown, Misuse, Refused
from callcast.core.work import Kind, Work
from callcast.ports.observer import DuplicateSeen
from callcast.runtime.inbox import Inbox
from callcast.runtime.transaction import Transaction
from callcast.testing.faults import Faults


def called(value: object, key: str = "key-1", operation: object = CHARGE) -> Work:
    return Work(Kind.SERVE, "payments.charge", key, operation, value=lambda: value)


class TestCalls:
    """A call of a once=True operation: the inbox keeps the answer and repeats it."""

    def layer(self, b: Bench) -> Inbox:
        return Inbox(b.units, "payments", CHARGE)

    async def charge(self, work: Work) -> object:
        assert callable(work.value)
        amount = work.value()
        await transaction_of(work).execute("insert into ledger values (?)", amount)
        return amount * 100

    async def test_a_repeated_call_gets_the_stored_answer(self) -> None:
        async with bench() as b:
            assert await self.layer(b)(called(7), self.charge) == 700
            assert await self.layer(b)(called(7), never) == 700
            assert await b.ledger() == [7]
            assert b.observer.facts == [DuplicateSeen(consumer="payments", message_id="key-1")]

    async def test_another_key_is_another_call(self) -> None:
        async with bench() as b:
            await self.layer(b)(called(7), self.charge)
            await self.layer(b)(called(7, "key-2"), self.charge)
            assert await b.ledger() == [7, 7]

    async def test_a_key_with_another_request_is_refused(self) -> None:
        async with bench() as b:
            await self.layer(b)(called(7), self.charge)
            with pytest.raises(Refused, match="use a new key") as caught:
                await self.layer(b)(called(8), never)
            assert caught.value.status == 422

    async def test_a_failed_call_is_not_kept(self) -> None:
        async def fails(work: Work) -> object:
            await self.charge(work)
            raise Refused("no money")

        async with bench() as b:
            with pytest.raises(Refused, match="no money"):
                await self.layer(b)(called(7), fails)
            assert await b.ledger() == []
            assert await self.layer(b)(called(7), self.charge) == 700

    async def test_a_twin_that_was_faster_answers_for_both(self) -> None:
        async with bench() as b:

            async def slow(work: Work) -> object:
                assert await self.layer(b)(called(7), self.charge) == 700
                return await self.charge(work)

            assert await self.layer(b)(called(7), slow) == 700
            assert await b.ledger() == [7]

    async def test_an_unknown_commit_is_the_callers_to_know(self) -> None:
        async with bench(failpoints=Faults({"session.committed@2": "raise"})) as b:
            with pytest.raises(CommitUnknown):
                await self.layer(b)(called(7), self.charge)
            assert await self.layer(b)(called(7), never) == 700

    async def test_other_calls_get_a_transaction_and_no_row(self) -> None:
        async def mail(work: Work) -> object:
            tx = work.transaction
            assert isinstance(tx, Transaction)
            await tx.execute("insert into ledger values ('mail')")
            return None

        async with bench() as b:
            layer = Inbox(b.units, "mail", MAIL)
            for _ in range(2):
                assert await layer(called("x", operation=MAIL), mail) is None
            assert await b.ledger() == ["mail", "mail"]
            assert await b.rows("select 1 from callcast_inbox") == []

    async def test_a_call_without_a_payload_is_misuse(self) -> None:
        async with bench() as b:
            with pytest.raises(Misuse):
                await self.layer(b)(replace(called(7), value=7), never)
