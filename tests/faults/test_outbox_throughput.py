"""O15 in numbers: a key that no broker takes a row of costs the other keys nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from transaction_parts import PLACED, bench

from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.runtime.outbox_consumer import OutboxSettings
from callcast.runtime.relay import Relay

KEYS = 10
ROWS = 60
"""Of each key."""
SHARE = 0.9
"""Of the throughput that the other keys must keep."""
ROUNDS = 12
"""At most: on a busy machine the best of a few tells what the code costs."""


async def seconds(path: Path, *, is_poisoned: bool) -> float:
    """How long the rows of ten keys take, beside those of another, good or poisoned."""
    async with bench(str(path)) as b:
        left = KEYS * ROWS
        all_there = asyncio.Event()

        async def publish(message: Message) -> None:
            nonlocal left
            if message.key == "bad":
                if is_poisoned:
                    raise Misuse("too large")
                return
            left -= 1
            if not left:
                all_there.set()

        async def ensure(*_: object) -> None: ...

        async with b.units.open() as tx:
            for number in range(ROWS):
                for key in ["bad", *range(KEYS)]:
                    await tx.publish(PLACED, f"{key}:{number}")
        relay = Relay(b.units, "shop", publish, ports=b.ports, ensure=ensure)
        worker = relay.worker(b.tasks, settings=OutboxSettings())
        began = time.perf_counter()
        await worker.start()
        await asyncio.wait_for(all_there.wait(), 30)
        took = time.perf_counter() - began
        await worker.drain(b.ports.clock.now() + 10.0)
        return took


@pytest.mark.timeout(120)
async def test_the_other_keys_keep_their_throughput_beside_a_poisoned_one(tmp_path: Path) -> None:
    clean = poisoned = float("inf")
    for number in range(ROUNDS):
        clean = min(clean, await seconds(tmp_path / f"{number}-clean.db", is_poisoned=False))
        poisoned = min(poisoned, await seconds(tmp_path / f"{number}.db", is_poisoned=True))
        if number and clean / poisoned >= SHARE:
            return
    raise AssertionError(f"clean {clean:.3f} s, beside a poisoned key {poisoned:.3f} s")
