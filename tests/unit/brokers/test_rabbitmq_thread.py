"""The thread with a loop of its own that the RabbitMQ adapter works on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest

from callcast.brokers.rabbitmq.thread import LoopThread, Reply, Stopped


@pytest.fixture
async def thread() -> AsyncGenerator[LoopThread]:
    made = LoopThread("callcast-test")
    try:
        yield made
    finally:
        await made.stop()


async def test_a_coroutine_runs_there_and_its_result_comes_back(thread: LoopThread) -> None:
    async def name() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    assert await thread.run(name) == "callcast-test"


async def test_an_error_comes_back_whether_it_begins_or_runs(thread: LoopThread) -> None:
    async def fail() -> None:
        raise ValueError("while it ran")

    def refuse() -> Reply[None]:
        raise ValueError("before it began")

    with pytest.raises(ValueError, match="while it ran"):
        await thread.run(fail)
    with pytest.raises(ValueError, match="before it began"):
        await thread.run(refuse)


async def test_a_reply_is_waited_for_and_may_be_there_already(thread: LoopThread) -> None:
    later, now = Reply[str](), Reply[str]()

    def make() -> Reply[str]:
        thread.loop.call_later(0.01, later.end, "later")
        return later

    now.end("now")
    assert await thread.run(make) == "later"
    assert await thread.run(lambda: now) == "now"


async def test_whoever_waits_for_a_reply_is_told_in_the_same_turn() -> None:
    reply, told = Reply[int](), list[int]()
    reply.then(told.append)
    reply.end(1)
    assert told == [1]


async def test_cancelled_here_it_is_cancelled_there(thread: LoopThread) -> None:
    began, ended = threading.Event(), threading.Event()

    async def hang() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    waiting = asyncio.ensure_future(thread.run(hang))
    await asyncio.to_thread(began.wait, 5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(ended.wait, 5)


async def test_cancelled_before_it_begins_it_is_never_done(thread: LoopThread) -> None:
    gate, done = threading.Event(), list[str]()

    async def act() -> None:
        done.append("it")

    thread.call(lambda: gate.wait(5))  # the loop there is busy
    waiting = asyncio.ensure_future(thread.run(act))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await thread.run(lambda: asyncio.sleep(0))
    assert done == []


async def test_the_end_of_the_thread_ends_those_who_wait(thread: LoopThread) -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    waiting = [
        asyncio.ensure_future(thread.run(hang)),
        asyncio.ensure_future(thread.run(Reply[None])),
    ]
    await thread.run(lambda: asyncio.sleep(0))
    await thread.stop()
    for one in waiting:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(one, 5)
    with pytest.raises(Stopped):
        await thread.run(hang)
