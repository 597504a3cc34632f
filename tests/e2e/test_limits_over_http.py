"""What a bus may send and hear over HTTP: `Settings(body_max_bytes=)` holds on both sides."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from http_parts import serving

from callcast import Bus, Misuse, Operation, Policy, Remote, Service, Settings

ECHO = Operation("echo.say", str, str, idempotent=True, deadline=10.0)
LONG = Operation("echo.long", int, str, idempotent=True, deadline=10.0)
LIMIT = 10_000
LARGE = 2 * 2**20
"""Bytes: over the default of 1 MiB."""


class Heard:
    """A service that says how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.service = Service("echo")

        @self.service.serves(ECHO)
        async def say(text: str) -> str:
            self.calls += 1
            return text

        @self.service.serves(LONG)
        async def long(size: int) -> str:
            self.calls += 1
            return "x" * size


@asynccontextmanager
async def called(
    heard: Heard, *, here: Settings, there: Settings | None = None
) -> AsyncGenerator[Bus]:
    """A bus with the settings `here` that calls one with the settings `there` over HTTP."""
    async with (
        Bus("memory://", services=[heard.service], settings=there or Settings()) as other,
        serving(other.asgi()) as url,
        Bus("memory://", name="caller", peers={"echo": url}, settings=here) as bus,
    ):
        yield bus


async def test_an_answer_over_the_limit_of_the_bus_is_refused_and_not_asked_for_again() -> None:
    heard = Heard()
    async with called(heard, here=Settings(body_max_bytes=LIMIT)) as bus:
        assert await bus.call(LONG, LIMIT - 2) == "x" * (LIMIT - 2)  # two quotes around it
        heard.calls = 0
        with pytest.raises(Remote, match=r"body of the answer.*10000 bytes.*body_max_bytes") as no:
            await bus.call(LONG, LIMIT - 1)
    assert (no.value.status, no.value.retryable) == (502, False)
    assert heard.calls == 1


async def test_a_request_over_the_limit_of_the_bus_is_not_sent() -> None:
    heard = Heard()
    settings = Settings(body_max_bytes=LIMIT, policy=Policy(deadline=10.0))
    async with called(heard, here=settings) as bus:
        assert await bus.call(ECHO, "x" * (LIMIT - 2)) == "x" * (LIMIT - 2)
        heard.calls = 0
        with pytest.raises(Misuse, match=r"10001 bytes.*10000.*Settings\(body_max_bytes=\)"):
            await bus.call(ECHO, "x" * (LIMIT - 1))
        assert heard.calls == 0
        circuit = settings.policy.guards("echo").circuit()
        assert circuit is not None
        for _ in range(20):  # the program is wrong, which says nothing about the service
            with pytest.raises(Misuse):
                await bus.call(ECHO, "x" * LIMIT)
        assert str(circuit.state) == "closed"


async def test_a_limit_that_is_raised_on_both_sides_lets_more_through() -> None:
    heard = Heard()
    roomy = Settings(body_max_bytes=2 * LARGE)
    async with called(heard, here=roomy, there=roomy) as bus:
        assert await bus.call(ECHO, "x" * LARGE) == "x" * LARGE


async def test_a_limit_that_is_raised_here_only_is_refused_there() -> None:
    heard = Heard()
    async with called(heard, here=Settings(body_max_bytes=2 * LARGE)) as bus:
        with pytest.raises(Remote, match="exceeds 1048576 bytes") as no:
            await bus.call(ECHO, "x" * LARGE)
    assert no.value.status == 413
    assert heard.calls == 0
