"""One run against a real broker: producers, consumers, their history, and the verdict on it."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from history_parts import GROUP, ORDERED, PATIENCE, PLAIN, Producers, event, producing

from callcast.ports.broker import Browses, Part, Source, need
from callcast.runtime import registry
from callcast.runtime.clock import AsyncioClock
from callcast.testing.history import Entry, Report, Rules, check, entries

IN_EACH_ORDER = [
    ("a_rabbitmq_of_its_own", PLAIN),
    ("a_kafka_of_its_own", ORDERED),
    # The same once more, and a group of Kafka takes its time to settle.
    pytest.param("a_rabbitmq_of_its_own", ORDERED, marks=pytest.mark.battery),
    pytest.param("a_kafka_of_its_own", PLAIN, marks=pytest.mark.battery),
]
"""Each broker of its own and each order: parameters of `broker_of_its_own` and `order`."""
PROGRAM = Path(__file__).with_name("history_parts.py")
TURN = 0.05
PAGE = 500
SILENCE = {"amqp": "heartbeat=1&connect_wait=1", "kafka": "session=2"}
"""By scheme: options with which a silent connection is noticed within seconds."""
DEATH = {"kafka": "session=2"}
"""By scheme: options with which the death of a process is noticed within seconds; where the end
of its connection says it at once there are none."""


class Run:
    """A topic of its own at a broker, and the folder in which all write down what they did."""

    def __init__(self, url: str, folder: Path, *, order: str = ORDERED) -> None:
        self.url = url
        self.folder = folder
        self.order = order
        self.topic = f"faults-{uuid.uuid4().hex[:12]}"
        self.event = event(self.topic, order)
        self.source = Source(self.topic, GROUP, ordered=order == ORDERED)

    async def prepare(self) -> None:
        """Have topic and group, so that nothing is published before somebody wants it."""
        broker = registry.open_broker(self.url, AsyncioClock())
        try:
            await broker.ensure([self.topic], [self.source])
        finally:
            await broker.close()

    @asynccontextmanager
    async def producers(self, url: str = "") -> AsyncIterator[Producers]:
        """Producers, here."""
        async with producing(url or self.url, self.event, self.folder) as producers:
            yield producers

    @asynccontextmanager
    async def consumers(self, count: int) -> AsyncIterator[list[Consumer]]:
        """So many consumers, each a process that consumes already; killed at the end."""
        consumers = await asyncio.gather(*(self.consumer() for _ in range(count)))
        try:
            yield consumers
        finally:
            for consumer in consumers:
                await consumer.kill()

    async def consumer(self, url: str = "") -> Consumer:
        """One more."""
        arguments = [url or self.url, self.topic, self.order, str(self.folder)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                assert await process.stdout.readline() == b"ready\n", "it ended before it was ready"
        except BaseException:
            await Consumer(process, self.folder).kill()
            raise
        return Consumer(process, self.folder)

    def history(self) -> list[Entry]:
        """All that was written down so far."""
        files = self.folder.glob("*.history")
        return [entry for file in files for entry in entries(file.read_bytes())]

    def effects(self) -> set[str]:
        """What the group has done."""
        return {entry.id for entry in self.history() if entry.op == "effect"}

    async def rest(self) -> None:
        """Return when the group has done all that was acknowledged, or will not any more."""
        deadline = time.monotonic() + PATIENCE
        seen = -1
        while time.monotonic() < deadline:
            history = self.history()
            done = {entry.id for entry in history if entry.op == "effect"}
            sent = {e.id for e in history if e.op == "publish" and e.type == "ok"}
            if sent <= done:
                return
            if len(done) > seen:
                seen, deadline = len(done), time.monotonic() + PATIENCE
            await asyncio.sleep(0.2)

    @asynccontextmanager
    async def load(self, producers: Producers, count: int, pause: float) -> AsyncIterator[None]:
        """So many producers that go on until the block ends, and finish what they have begun."""
        stop = asyncio.Event()
        work = asyncio.gather(
            *(producers.publish_until(stop, f"p{n}", pause) for n in range(count))
        )
        try:
            yield
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await work
        finally:
            work.cancel()

    async def goes_on(self, producers: Producers, count: int, patience: float = PATIENCE) -> None:
        """Return when so many more were acknowledged, and all that was by now is handled."""
        wanted = producers.acknowledged + count
        await until(lambda: producers.acknowledged >= wanted, patience)
        sent = {e.id for e in self.history() if e.op == "publish" and e.type == "ok"}
        await until(lambda: sent <= self.effects(), patience)

    async def report(self) -> Report:
        """The verdict. A handler never fails here, so nothing may be in the dead letters."""
        dead = [
            Entry("broker", "dead", each, mono=time.monotonic(), group=GROUP)
            for each in await self.dead()
        ]
        rules = Rules(ordered=self.order == ORDERED, settles_durably=False)
        report = check([*self.history(), *dead], [GROUP], rules)
        assert not dead, dead
        return report

    async def dead(self) -> list[str]:
        """Ids of the dead letters."""
        broker = registry.open_broker(self.url, AsyncioClock())
        try:
            page = await need(broker, Browses).browse(self.source, part=Part.DEAD, limit=PAGE)
            return [glimpse.message.id for glimpse in page]
        finally:
            await broker.close()


class Consumer:
    """A consumer in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder

    async def kill(self) -> bool:
        """End it with SIGKILL; whether a handler was at work."""
        if self._process.returncode is None:
            self._process.kill()
        await self._end()
        begun = self._folder / f"consumer-{self._process.pid}.begun"
        marks = begun.read_bytes() if begun.exists() else b""
        return marks.count(b"+") > marks.count(b"-")

    def freeze(self) -> None:
        """Let it stand still with its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Ask it to end, and wait until it has: it finishes what it has begun."""
        self._process.send_signal(signal.SIGTERM)
        assert await self._end() == 0

    async def _end(self) -> int:
        async with asyncio.timeout(PATIENCE):
            code = await self._process.wait()
        self._process._transport.close()  # type: ignore[attr-defined]  # else it is left to the GC
        return code


async def until(is_so: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < deadline, f"it did not come true within {patience} s"
        await asyncio.sleep(TURN)


def noticing(what: Mapping[str, str], url: str) -> str:
    """The same server, where SILENCE or DEATH is noticed soon."""
    options = what.get(url.partition(":")[0], "")
    return f"{url}?{options}" if options else url


__all__ = [
    "DEATH",
    "IN_EACH_ORDER",
    "ORDERED",
    "PATIENCE",
    "PLAIN",
    "SILENCE",
    "Consumer",
    "Run",
    "noticing",
    "until",
]
