"""The work that all contenders do who carry messages: one order, 256 bytes of JSON."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

BODY_BYTES = 256
CUSTOMERS = 1_000
"""Keys of the keyed event."""


class Order(msgspec.Struct):
    id: str
    customer: str
    amount: int
    sent_ns: int
    """Of the machine's monotonic clock, which is the same in all processes."""
    note: str


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Order).decode


def order(number: int, customer: str = "", sent_ns: int = 10**15) -> Order:
    """One whose JSON has 256 bytes."""
    made = Order(f"o-{number:08d}", customer or f"c-{number % CUSTOMERS:04d}", 100, sent_ns, "")
    made.note = "x" * (BODY_BYTES - len(encode(made)))
    return made


def orders(count: int, customers: int = CUSTOMERS) -> list[Order]:
    """As many, of so many customers in turn."""
    return [order(number, f"c-{number % customers:04d}") for number in range(count)]


class Stopwatch:
    """What a stretch of work took, in seconds."""

    wall: float = 0.0
    cpu: float = 0.0
    """Of all threads of this process."""

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.wall = time.perf_counter() - self._wall
        self.cpu = time.process_time() - self._cpu


class Count:
    """Counts what is handled, and says when that is all; its watch runs from the first on."""

    def __init__(self, expected: int) -> None:
        self.expected = self.left = expected
        self.is_over = asyncio.Event()
        self.watch = Stopwatch()

    def one(self) -> None:
        if self.left == self.expected:
            self.watch.start()
        self.left -= 1
        if self.left == 0:
            self.is_over.set()


@contextmanager
def timed() -> Iterator[Stopwatch]:
    watch = Stopwatch()
    watch.start()
    yield watch
    watch.stop()


@contextmanager
def folder() -> Iterator[Path]:
    """A new folder on the disk that the benches stand on: a tmpfs would make every sync free."""
    path = Path(tempfile.mkdtemp(prefix=".bench-", dir=Path(__file__).parent))
    try:
        yield path
    finally:
        shutil.rmtree(path)
