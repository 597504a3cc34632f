"""Brokers with one fault each, made of the memory broker, and the sentences that name the fault.

A fault is a class whose members take the place of those of the part that it spoils.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from unittest import SkipTest, mock

from callcast.brokers.memory import MemoryBroker
from callcast.ports.broker import Broker
from callcast.testing.broker_suite import BrokerSuite
from callcast.testing.clock import ManualClock


class Memory(BrokerSuite):
    """The suite on the memory broker, with whatever patch is in force."""

    clock: ManualClock
    patience = 0.7
    messages = 300

    @asynccontextmanager
    async def storage(self) -> AsyncGenerator[None]:
        self.clock = ManualClock()
        yield

    async def open(self) -> Broker:
        return MemoryBroker(self.clock)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def wall(self) -> float:
        return self.clock.wall()


def failing() -> set[str]:
    """The names of the cases that fail now."""
    failed: set[str] = set()
    for name in dir(Memory):
        if name.startswith("test_"):
            try:
                getattr(Memory(), name)()
            except SkipTest:
                continue
            except Exception:  # noqa: BLE001 - whatever a wrong broker ends a case with
                failed.add(name.removeprefix("test_"))
    return failed


@dataclass(frozen=True)
class Fault:
    """How to spoil the memory broker, and the sentences that must be false then."""

    patch: Callable[[], AbstractContextManager[object]]
    sentences: frozenset[str]


FAULTS: dict[str, Fault] = {}


def fault(where: object, *sentences: str) -> Callable[[type], type]:
    """Put the members of the decorated class in the place of those of `where`."""

    def register(wrong: type) -> type:
        members = {
            name: getattr(wrong, name)
            for name in vars(wrong)
            if not (name.startswith("__") and name.endswith("__"))
        }
        assert wrong.__name__ not in FAULTS
        FAULTS[wrong.__name__] = Fault(
            lambda: mock.patch.multiple(where, **members), frozenset(sentences)
        )
        return wrong

    return register
