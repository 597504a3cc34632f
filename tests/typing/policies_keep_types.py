"""A guarded function has the type it had before: checked by mypy and pyright, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable
from decimal import Decimal
from typing import assert_type

from callcast.runtime.policy import Bulkhead, CircuitBreaker, Policy, Retry

policy = Policy(
    retry=Retry(attempts=5),
    breaker=CircuitBreaker(wait=10.0),
    bulkhead=Bulkhead(8, queue=2),
    deadline=2.0,
    retry_on=(OSError, TimeoutError),
)


@policy
async def price(sku: str, *, currency: str = "EUR") -> Decimal:
    return Decimal(len(sku) + len(currency))


class Client:
    @policy
    async def get(self, path: str) -> bytes:
        return path.encode()


class Fetch:
    async def __call__(self, path: str) -> int:
        return len(path)


def later(value: int) -> Awaitable[int]:
    return asyncio.sleep(0, value)


async def types_are_kept() -> None:
    assert_type(await price("tea"), Decimal)
    assert_type(await price("tea", currency="USD"), Decimal)
    assert_type(await Client().get("/"), bytes)
    assert_type(await policy.run(price, "tea", currency="USD"), Decimal)
    assert_type(await policy.run(Fetch(), "/"), int)
    assert_type(await policy.run(later, 3), int)
    assert_type(await policy.run(functools.partial(later, 3)), int)
    assert_type(await policy(later)(3), int)
    assert_type(await asyncio.create_task(price("tea")), Decimal)


async def mistakes_are_red() -> None:
    await price(3)  # type: ignore[arg-type]
    await price("tea", colour="red")  # type: ignore[call-arg]
    await Client().get()  # type: ignore[call-arg]
    await policy.run(price, 3)  # type: ignore[arg-type]
    await policy.run(len, "tea")  # type: ignore[arg-type]
    policy(len)  # type: ignore[arg-type]
    Policy(deadline="2")  # type: ignore[arg-type]
    Policy(retry_on=KeyboardInterrupt)  # type: ignore[arg-type]
