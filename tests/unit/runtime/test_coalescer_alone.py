"""What the coalescer sends alone, without a batch."""

from __future__ import annotations

import asyncio

import pytest
from coalescer_kit import Post, with_post
from worker_parts import message

from callcast.core.errors import NotSent, Unanswered


@with_post
async def test_one_that_is_sent_alone_lets_those_behind_it_gather(post: Post) -> None:
    await post.coalescer.publish(message("0"), post.clock.now() + 5)
    post.desk.gate = asyncio.Event()
    sends = await post.sent("1")
    sends += await post.sent("2", "3")
    assert post.desk.batches == [["0"], ["1"]]
    post.desk.gate.set()
    await asyncio.gather(*sends)
    assert post.desk.batches == [["0"], ["1"], ["2", "3"]]


@with_post
async def test_one_that_is_sent_alone_ends_at_its_deadline(post: Post) -> None:
    await post.coalescer.publish(message("0"), post.clock.now() + 5)
    post.desk.gate = asyncio.Event()
    late, sent = post.send("late", within=0.0), post.send("1", within=1.0)
    await post.clock.rest()
    with pytest.raises(NotSent, match="its deadline has passed"):
        await late
    await post.clock.advance(1.0)
    with pytest.raises(Unanswered, match="not confirmed: its deadline has passed"):
        await sent


@with_post
async def test_closing_waits_for_one_that_is_sent_alone(post: Post) -> None:
    await post.coalescer.publish(message("0"), post.clock.now() + 5)
    post.desk.gate = asyncio.Event()
    (sent,) = await post.sent("1")
    closing = asyncio.ensure_future(post.coalescer.close(post.clock.now() + 3))
    await post.clock.rest()
    assert not closing.done()
    post.desk.gate.set()
    await asyncio.gather(sent, closing)


@with_post
async def test_one_that_is_cancelled_while_it_is_sent_alone_makes_way(post: Post) -> None:
    await post.coalescer.publish(message("0"), post.clock.now() + 5)
    post.desk.gate = asyncio.Event()
    (sent,) = await post.sent("1")
    sent.cancel()
    await post.clock.rest()
    post.desk.gate = None
    await post.coalescer.publish(message("2"), post.clock.now() + 5)
    assert post.desk.batches == [["0"], ["1"], ["2"]]
