"""A caller's deadline over two services: inherited by handlers that do nothing for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from http_parts import serving

from callcast import Bus, Context, NotSent, Operation, Peer, Policy, Service, Unanswered
from callcast.runtime.clock import AsyncioClock

FRONT = Operation("front.ask", str, str, deadline=60.0)
BACK = Operation("back.ask", str, str, deadline=30.0)
HANGS = "hangs"
ONCE = Policy(retry=None)
now = AsyncioClock().now


class Chain:
    """A service that calls another one, on buses of their own."""

    def __init__(self) -> None:
        self.left: dict[str, float] = {}
        """Seconds that each service was given, when its handler began."""
        self.begun = asyncio.Event()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.front = Service("front")
        self.back = Service("back")

        @self.front.serves(FRONT)
        async def relay(text: str, bus: Bus, context: Context) -> str:
            self._note("front", context)
            try:
                return await bus.call(BACK, text)
            except asyncio.CancelledError:
                self.cancelled.put_nowait("front")
                raise

        @self.back.serves(BACK)
        async def answer(text: str, context: Context) -> str:
            self._note("back", context)
            self.begun.set()
            try:
                await asyncio.sleep(60.0 if text == HANGS else 0.0)
            except asyncio.CancelledError:
                self.cancelled.put_nowait("back")
                raise
            return text.upper()

    def _note(self, name: str, context: Context) -> None:
        assert context.deadline is not None
        self.left[name] = context.deadline - now()

    @asynccontextmanager
    async def caller(self) -> AsyncGenerator[Bus]:
        async with (
            Bus("memory://", services=[self.back]) as back,
            serving(back.asgi()) as there,
            Bus("memory://", services=[self.front], peers={"back": there}) as front,
            serving(front.asgi()) as here,
            Bus("memory://", name="caller", peers={"front": Peer(here, policy=ONCE)}) as bus,
        ):
            yield bus

    async def until_cancelled(self, *names: str) -> None:
        missing = set(names)
        async with asyncio.timeout(10):
            while missing:
                missing.discard(await self.cancelled.get())


async def test_handlers_inherit_what_is_left_of_the_callers_deadline() -> None:
    chain = Chain()
    async with chain.caller() as bus:
        assert await bus.call(FRONT, "tea", deadline=20.0) == "TEA"
    assert 0 < chain.left["back"] <= chain.left["front"] <= 20.0


async def test_without_a_shorter_one_each_operation_has_its_own() -> None:
    chain = Chain()
    async with chain.caller() as bus:
        await bus.call(FRONT, "tea")
    assert 30.0 < chain.left["front"] <= 60.0
    assert 20.0 < chain.left["back"] <= 30.0


async def test_when_it_passes_the_caller_knows_and_the_handlers_end() -> None:
    chain = Chain()
    async with chain.caller() as bus:
        began = now()
        with pytest.raises(Unanswered, match="no answer within"):
            await bus.call(FRONT, HANGS, deadline=0.5)
        assert 0.5 <= now() - began < 5.0
        await chain.until_cancelled("back")


async def test_a_caller_that_goes_away_ends_the_handlers_behind_it() -> None:
    chain = Chain()
    async with chain.caller() as bus:
        call = asyncio.create_task(bus.call(FRONT, HANGS))
        await chain.begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await chain.until_cancelled("front", "back")


async def test_with_no_time_left_nothing_is_sent() -> None:
    chain = Chain()
    async with chain.caller() as bus:
        with pytest.raises(NotSent, match="nothing was sent"):
            await bus.call(FRONT, "tea", deadline=0.0005)
    assert chain.left == {}
