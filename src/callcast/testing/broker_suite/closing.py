"""Closing: at any moment, as often as one likes, and nothing is lost or left behind."""

from __future__ import annotations

import asyncio
import gc
import pathlib
import threading

from callcast.core.errors import NotSent
from callcast.core.outcome import DONE
from callcast.testing.broker_suite.harness import Harness, case, ids, raised, settle

CYCLES = 100


class Closing(Harness):
    """Cases about `close`."""

    @case
    async def test_closing_twice_is_closing_once(self) -> None:
        worker = await self.join(await self.listen())
        await worker.close()
        await worker.close()
        await self.broker.close()
        await self.broker.close()
        await worker.close()

    @case
    async def test_a_broker_closes_before_it_was_used(self) -> None:
        await (await self.another()).close()

    @case
    async def test_closing_a_consumer_wakes_its_waiting_fetch(self) -> None:
        worker = await self.join(await self.listen())
        waiting = self.start(worker.fetch(10, 1_000_000.0))
        await self.pass_time(0)
        await worker.close()
        assert list(await waiting) == []

    @case
    async def test_closing_a_broker_wakes_waiting_fetches(self) -> None:
        source = await self.listen()
        workers = [await self.join(source) for _ in range(3)]
        waiting = [self.start(worker.fetch(10, 1_000_000.0)) for worker in workers]
        await self.pass_time(0)
        await self.broker.close()
        assert [list(found) for found in await asyncio.gather(*waiting)] == [[], [], []]

    @case
    async def test_a_closed_consumer_fetches_nothing(self) -> None:
        worker = await self.join(await self.listen())
        await worker.close()
        await self.publish("a")
        assert list(await worker.fetch(10, 1_000_000.0)) == []

    @case
    async def test_a_consumer_that_closes_gives_back_what_it_holds_uncounted(self) -> None:
        source = await self.listen()
        sent = await self.publish("a", "b", "c")
        worker = await self.join(source)
        first, *_ = await self.take(worker, 3)
        await settle(worker, [first], DONE)
        await worker.close()
        back = await self.take(await self.join(source), 2)
        assert sorted([first.message.id, *ids(back)]) == sent
        assert [(one.round, one.crashes) for one in back] == [(0, 0), (0, 0)]

    @case
    async def test_nothing_is_lost_when_many_close_at_once(self) -> None:
        source = await self.listen()
        sent = await self.publish(*(f"m{number}" for number in range(100)))
        workers = [await self.join(source) for _ in range(20)]
        held = [await self.take(worker, 4) for worker in workers]
        assert sum(map(len, held)) == 80
        await asyncio.gather(*(worker.close() for worker in workers))
        assert sorted(await self.finish(await self.join(source))) == sorted(sent)

    @case
    async def test_using_a_closed_broker_is_an_error(self) -> None:
        source = await self.listen()
        await self.broker.close()
        await raised(NotSent, self.broker.publish([self.message("a")]))
        await raised(NotSent, self.broker.consume(source))
        await raised(NotSent, self.broker.ensure([self.topic], [source]))

    @case
    async def test_closing_leaves_no_task_no_thread_and_no_file_descriptor(self) -> None:
        source = await self.listen()
        await self.broker.close()  # SQLite keeps descriptors until the last connection closes
        before = Left()
        broker = await self.open()
        await broker.ensure([self.topic], [source])
        worker = await broker.consume(source, lease=self.lease)
        waiting = self.start(worker.fetch(10, 1_000_000.0))
        await self.pass_time(0)
        await broker.close()
        await waiting
        await self.pass_time(0)
        assert before.since() == []

    @case
    async def test_a_hundred_connections_leave_nothing_behind(self) -> None:
        source = await self.listen()
        await self.broker.close()  # as above
        before = Left()
        for number in range(CYCLES):
            broker = await self.open()
            await broker.ensure([self.topic], [source])
            worker = await broker.consume(source, lease=self.lease)
            await broker.publish([self.message(f"m{number}")])
            await self.finish(worker)
            await broker.close()
        await self.pass_time(0)
        assert before.since() == []


class Left:
    """The tasks, threads and file descriptors that there are at one moment."""

    def __init__(self) -> None:
        gc.collect()
        self.tasks: set[asyncio.Task[object]] = asyncio.all_tasks()
        self.threads: set[threading.Thread] = set(threading.enumerate())
        self.files: dict[str, str] = _files()

    def since(self) -> list[str]:
        """What has come since and is still there."""
        now = Left()
        more = [str(task) for task in now.tasks - self.tasks if not task.done()]
        more += [str(thread) for thread in now.threads - self.threads if thread.is_alive()]
        if len(now.files) > len(self.files):
            opened = [f"{fd} -> {to}" for fd, to in now.files.items() if self.files.get(fd) != to]
            count = len(now.files) - len(self.files)
            more.append(f"{count} file descriptors, of {', '.join(sorted(opened))}")
        return more


def _files() -> dict[str, str]:
    """The open file descriptors, and what they lead to."""
    linux = pathlib.Path("/proc/self/fd")
    files: dict[str, str] = {}
    for descriptor in (linux if linux.is_dir() else pathlib.Path("/dev/fd")).iterdir():
        try:
            files[descriptor.name] = str(descriptor.readlink())
        except OSError:  # no link on this system, or closed again: the folder's own
            files[descriptor.name] = "?"
    return files
