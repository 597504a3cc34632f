"""Several batches on their way at once, where the broker says that this is worth it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from coalescer_kit import Desk, Post, Posted, with_post
from msgspec.structs import replace
from worker_parts import message

from callcast.core.errors import CircuitOpen, NotSent, Unanswered
from callcast.policies.options import CircuitBreaker


def with_two_at_once(test: Posted) -> Any:
    """With a post whose desk takes two batches at once."""

    async def run(post: Post) -> None:
        post.desk.traits = replace(Desk.traits, publishes_at_once=2)  # type: ignore[misc]
        post.open()
        await test(post)

    return with_post(run)


@with_two_at_once
async def test_a_second_batch_leaves_while_the_first_is_on_its_way(post: Post) -> None:
    post.desk.gate = asyncio.Event()
    sends = await post.sent("1")
    sends += await post.sent("2", "3")
    sends += await post.sent("4")
    sends += await post.sent("5")
    assert post.desk.batches == [["1"], ["2", "3"]]
    post.desk.gate.set()
    await asyncio.gather(*sends)
    assert post.desk.batches == [["1"], ["2", "3"], ["4", "5"]]


@with_two_at_once
async def test_batches_that_leave_side_by_side_share_what_one_may_hold(post: Post) -> None:
    post.open(batch_max=4)
    post.desk.gate = asyncio.Event()
    sends = await post.sent("1", "2", "3", "4", "5")
    assert post.desk.batches == [["1", "2"], ["3", "4"]]
    post.desk.gate.set()
    await asyncio.gather(*sends)
    assert post.desk.batches == [["1", "2"], ["3", "4"], ["5"]]


@with_two_at_once
async def test_beside_one_that_is_sent_alone_another_leaves_too(post: Post) -> None:
    await post.coalescer.publish(message("0"), post.clock.now() + 5)
    post.desk.gate = asyncio.Event()
    sends = await post.sent("1")
    sends += await post.sent("2")
    sends += await post.sent("3")
    assert post.desk.batches == [["0"], ["1"], ["2"]]
    post.desk.gate.set()
    await asyncio.gather(*sends)
    assert post.desk.batches == [["0"], ["1"], ["2"], ["3"]]


@with_two_at_once
async def test_each_batch_has_its_own_end(post: Post) -> None:
    first = post.desk.gate = asyncio.Event()
    [one] = await post.sent("1")
    second = post.desk.gate = asyncio.Event()
    [two] = await post.sent("2")
    second.set()
    await two
    assert not one.done()
    post.desk.errors.append(ConnectionError("gone"))
    first.set()
    with pytest.raises(Unanswered, match="gone"):
        await one


@with_two_at_once
async def test_past_its_deadline_what_is_on_its_way_is_given_up_in_every_batch(post: Post) -> None:
    post.desk.gate = asyncio.Event()
    sends = await post.sent("1", within=1.0)
    sends += await post.sent("2", within=1.0)
    sends += await post.sent("3", within=1.0)
    await post.clock.advance(1.0)
    ends = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(end) for end in ends] == [Unanswered, Unanswered, NotSent]


@with_two_at_once
async def test_a_circuit_that_is_tried_is_tried_with_one_batch(post: Post) -> None:
    post.open(breaker=CircuitBreaker(consecutive=1, wait=1.0, permitted=1))
    post.desk.errors.append(ConnectionError("gone"))
    with pytest.raises(Unanswered):
        await post.send("0")
    with pytest.raises(CircuitOpen):
        await post.send("1")
    await post.clock.advance(2.0)
    post.desk.gate = asyncio.Event()
    sends = await post.sent("trial")
    sends += await post.sent("behind")
    assert post.desk.batches == [["0"], ["trial"]]
    post.desk.gate.set()
    await asyncio.gather(*sends)
    assert post.desk.batches == [["0"], ["trial"], ["behind"]]


@with_two_at_once
async def test_closing_waits_for_all_that_is_on_its_way(post: Post) -> None:
    post.desk.gate = asyncio.Event()
    sends = [*await post.sent("1"), *await post.sent("2"), *await post.sent("3")]
    closing = asyncio.ensure_future(post.coalescer.close(post.clock.now() + 3))
    await post.clock.rest()
    assert not closing.done()
    post.desk.gate.set()
    await asyncio.gather(*sends, closing)


@with_two_at_once
async def test_what_cannot_be_sent_by_the_end_is_given_up(post: Post) -> None:
    post.desk.gate = asyncio.Event()
    sends = [*await post.sent("1"), *await post.sent("2"), *await post.sent("3")]
    closing = asyncio.ensure_future(post.coalescer.close(post.clock.now() + 3))
    await post.clock.rest()
    await post.clock.advance(3.0)
    await closing
    ends = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(end) for end in ends] == [Unanswered, Unanswered, NotSent]


@with_two_at_once
async def test_publishers_are_answered_though_the_bus_is_torn_down(post: Post) -> None:
    post.desk.gate = asyncio.Event()
    sends = [*await post.sent("1"), *await post.sent("2"), *await post.sent("3")]
    await post.tasks.close()
    await post.clock.rest()
    assert [type(send.exception()) for send in sends] == [Unanswered, Unanswered, NotSent]


@with_two_at_once
async def test_what_was_about_to_leave_when_the_bus_was_torn_down_was_not_sent(post: Post) -> None:
    send = post.send("1")
    await asyncio.sleep(0)  # it is taken by the child that sends, and its own has not begun
    await post.tasks.close()
    await post.clock.rest()
    assert isinstance(send.exception(), NotSent)
    assert post.desk.batches == []
