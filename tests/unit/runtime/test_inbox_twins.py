"""The inbox layer when a twin of the message was faster."""

from __future__ import annotations

import asyncio

import pytest
from inbox_kit import inbox, pack
from transaction_parts import (
    Bench,
    bench,
    consumed,
    incoming,
    transaction_of,
)

from callcast.core.errors import Duplicate
from callcast.core.outcome import DONE, Dead, Outcome
from callcast.core.work import Work
from callcast.ports.observer import DuplicateSeen


async def twin(b: Bench, body: bytes = b'"a:1"') -> None:
    """Somebody else handles the message now."""
    assert await inbox(b)(consumed(incoming(body=body)), pack) == DONE


@pytest.mark.parametrize("catches", [Exception, BaseException])
async def test_a_twin_that_was_faster_ends_the_handler_and_it_is_done(
    catches: type[BaseException],
) -> None:
    async with bench() as b:

        async def slow(work: Work) -> Outcome:
            await twin(b)
            with pytest.raises(Duplicate):
                await transaction_of(work).execute("insert into ledger values ('twice')")
            try:
                await transaction_of(work).execute("insert into ledger values ('twice')")
            except catches:
                raise ValueError("whatever the handler makes of it") from None
            return DONE

        assert await inbox(b)(consumed(incoming()), slow) == DONE
        assert await b.ledger() == ["m-1"]


async def test_a_twin_is_noticed_at_the_commit_when_the_transaction_was_not_used() -> None:
    async with bench() as b:

        async def slow(_work: Work) -> Outcome:
            await twin(b)
            return DONE

        assert await inbox(b)(consumed(incoming()), slow) == DONE
        assert b.observer.facts == [DuplicateSeen(consumer="warehouse", message_id="m-1")]


async def test_a_twin_inside_a_task_group_is_done_too() -> None:
    async with bench() as b:

        async def slow(work: Work) -> Outcome:
            await twin(b)
            async with asyncio.TaskGroup() as group:
                group.create_task(transaction_of(work).execute("insert into ledger values (1)"))
            return DONE

        assert await inbox(b)(consumed(incoming()), slow) == DONE
        assert await b.ledger() == ["m-1"]


async def test_a_twin_with_another_payload_is_id_reuse() -> None:
    async with bench() as b:

        async def slow(_work: Work) -> Outcome:
            await twin(b, body=b'"a:2"')
            return DONE

        assert await inbox(b)(consumed(incoming()), slow) == Dead("id_reuse")


async def test_a_cancellation_beside_a_twin_is_still_a_cancellation() -> None:
    async with bench() as b:

        async def slow(work: Work) -> Outcome:
            await twin(b)
            try:
                await transaction_of(work).execute("insert into ledger values ('twice')")
            except Duplicate:
                raise asyncio.CancelledError from None
            return DONE

        with pytest.raises(asyncio.CancelledError):
            await inbox(b)(consumed(incoming()), slow)
        assert await b.ledger() == ["m-1"]
