"""Brokers with one fault each, made of the memory broker, and the sentences that name the fault.

A fault is a class whose members take the place of those of the part that it spoils.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from unittest import SkipTest, mock

from msgspec.structs import replace

from callcast.brokers.memory import MemoryBroker
from callcast.brokers.memory.broker import Group, MemoryConsumer
from callcast.brokers.memory.log import Log
from callcast.core.outcome import Outcome
from callcast.ports.broker import Broker, Delivery, Part, Source, Traits, Unsettled
from callcast.testing.broker_suite import BrokerSuite
from callcast.testing.broker_suite.processes import Processes
from callcast.testing.clock import ManualClock


@dataclass
class Store:
    """What outlives a stored broker: a file, as it were."""

    topics: dict[str, dict[str, Group]] = field(default_factory=dict)
    logs: dict[str, Log] = field(default_factory=dict[str, Log])
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    is_full: bool = False
    is_paused: bool = False
    """What a fault remembers of a group that is gone."""


class StoredBroker(MemoryBroker):
    """A memory broker on a store that others share and that survives it: no case is left out."""

    def __init__(self, clock: ManualClock, store: Store, *, retain: float = 0.0) -> None:
        super().__init__(clock, retain=retain)
        self._store = store
        self._topics = store.topics
        self._logs = store.logs
        self._numbers = store.numbers

    @property
    def traits(self) -> Traits:
        return replace(super().traits, durable=True, shared=True, durable_settle=True)

    async def consume(
        self, source: Source, *, part: Part = Part.READY, lease: float = 60.0, prefetch: int = 250
    ) -> MemoryConsumer:
        consumer = await super().consume(source, part=part, lease=lease, prefetch=prefetch)
        settle = consumer.settle

        async def unless_full(verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
            if self._store.is_full:
                raise Unsettled(failed=[delivery for delivery, _ in verdicts])
            await settle(verdicts)

        consumer.settle = unless_full  # type: ignore[method-assign] - this one's alone
        return consumer


class Memory(BrokerSuite):
    """The suite on the stored broker, with whatever fault is in force."""

    clock: ManualClock
    store: Store
    patience = 1.5
    messages = 300

    @asynccontextmanager
    async def storage(self) -> AsyncGenerator[None]:
        self.clock = ManualClock()
        self.store = Store()
        yield

    async def open(self) -> Broker:
        return StoredBroker(self.clock, self.store)

    async def open_keeping(self) -> Broker:
        return StoredBroker(self.clock, self.store, retain=3600.0)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def wall(self) -> float:
        return self.clock.wall()

    @contextmanager
    def refuse_settles(self) -> Generator[None]:
        self.store.is_full = True
        yield
        self.store.is_full = False


def failing() -> set[str]:
    """The names of the cases that fail now."""
    failed: set[str] = set()
    for name in dir(Memory):
        if name.startswith("test_") and name not in vars(Processes):
            try:
                getattr(Memory(), name)()
            except SkipTest as error:
                raise AssertionError(f"{name} is left out") from error
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
