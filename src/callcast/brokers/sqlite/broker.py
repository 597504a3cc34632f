"""The broker's face: it asks the engine; what happens in the file stands beside it."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from msgspec.structs import replace

from callcast.brokers.sqlite import catalog, kept, look, publish
from callcast.brokers.sqlite.consumer import SqliteConsumer
from callcast.brokers.sqlite.dbclock import span
from callcast.brokers.sqlite.engine import Engine, Options
from callcast.brokers.sqlite.files import Synchronous
from callcast.brokers.sqlite.jobs import Closed, WriteFailed
from callcast.brokers.sqlite.records import Group, Hand
from callcast.core.errors import (
    CallcastError,
    Misuse,
    NotSent,
    Unanswered,
    Unavailable,
    Unpublished,
)
from callcast.core.message import Message
from callcast.ports.broker import Difference, Glimpse, Lag, Part, Source, Traits
from callcast.ports.clock import Clock

R = TypeVar("R")

TRAITS = Traits(name="sqlite", release_costs="a copy of the message, in the commit of its settle")


class SqliteBroker:
    """Messages in one SQLite file, for any number of processes of one machine.

    `synchronous="full"` (the default): what was published or settled survives a power failure.
    `"normal"` saves a sync of the disk per commit; a crash of the process loses nothing then
    either, but a power failure or a crash of the system may take back the last commits: messages
    that were published vanish, and messages that were done come again.

    `retain`: seconds for which published messages are kept after all groups have passed them, for
    `read`. What is published for one group only, or for a later time, is not kept.
    `lock_wait`: seconds to wait for another process that writes, then the operation fails; below
    the default deadline of a publish, 5 s. `clock` tells the time.

    Nothing is opened before the first use. After a fork the child opens the file anew. Offers the
    abilities `Browses`, `Inspects`, `Parks`, `Pauses`, `Retires`, `Rewinds` and `Schedules`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock,
        synchronous: Synchronous = "full",
        retain: float = 0.0,
        lock_wait: float = 4.0,
    ) -> None:
        if synchronous not in {"full", "normal"}:
            raise Misuse(f"synchronous={synchronous!r} must be 'full' or 'normal'")
        self._options = Options(
            path=Path(path).absolute(),
            synchronous=synchronous,
            retain=retain,
            lock_wait=lock_wait,
        )
        self._traits = replace(TRAITS, log_kept=retain)
        self._clock = clock
        self._opened: Engine | None = None
        self._pid = os.getpid()
        self._consumers: set[SqliteConsumer] = set()
        self._is_closed = False

    @property
    def traits(self) -> Traits:
        """What is so about this broker."""
        return self._traits

    @property
    def delay_max(self) -> float:
        """Any delay will do."""
        return math.inf

    async def ensure(self, topics: Sequence[str], sources: Sequence[Source]) -> None:
        """Make topics and groups exist; raises `Misuse` naming every group that is otherwise.

        Raises `Unavailable` when the file cannot be written.
        """
        catalog.check_names(topics, sources)
        await self._write(lambda cx: catalog.ensure(cx, topics, sources))

    async def publish(self, messages: Sequence[Message]) -> None:
        """Make all messages durable in one commit; raises `Unpublished`."""
        engine = self._engine()
        if not messages:
            return
        batch = publish.prepare(messages, TRAITS.body_max_bytes)
        keeps = self._options.retain > 0
        try:
            done = await engine.writer.do(
                publish.Publish(batch, engine.clock, keeps=keeps),
                then=engine.published,
                is_voidable=True,
            )
        except Closed:
            raise NotSent("the broker is closed") from None
        except Misuse:
            raise
        except CallcastError as error:
            raise Unpublished([_failure(message, error) for message in messages]) from error
        if any(done.errors):
            raise Unpublished(done.errors)

    async def consume(
        self, source: Source, *, part: Part = Part.READY, lease: float = 60.0, prefetch: int = 250
    ) -> SqliteConsumer:
        """Open a consumer; nothing is fetched ahead, so `prefetch` changes nothing here."""
        del prefetch
        group = await self._group(source)
        engine = self._engine()
        hand = Hand(engine.live.instance, next(engine.owners), group, part, span(lease))
        consumer = SqliteConsumer(engine, hand, clock=self._clock, on_close=self._consumers.discard)
        self._consumers.add(consumer)
        return consumer

    async def lag(self, source: Source) -> Lag:
        """How far this group is behind; raises `Unavailable` when the file cannot be read."""
        group = await self._group(source)
        engine = self._engine()
        return await self._read(lambda cx: look.lag(cx, group, engine.clock))

    async def close(self) -> None:
        """Close all consumers, then the file. Idempotent; what was leased is free again."""
        self._is_closed = True
        engine, self._opened = self._opened, None
        if engine is None or self._pid != os.getpid():
            return
        consumers = list(self._consumers)
        # One that cannot give back what it holds does not stop the others: its lock is dropped
        # with the engine, and whoever looks next takes its messages back.
        await asyncio.gather(*(one.close() for one in consumers), return_exceptions=True)
        engine.stop()
        await _in_a_thread(engine.join)

    # Browses, Inspects, Parks, Pauses, Retires, Rewinds

    async def sources(self) -> Sequence[Source]:
        """All groups that there are."""
        return await self._read(look.sources)

    async def browse(
        self, source: Source, *, part: Part = Part.READY, after: str = "", limit: int = 100
    ) -> Sequence[Glimpse]:
        """The next `limit` messages of a part: what is held first, then the log; oldest first."""
        group = await self._group(source)
        page = look.Page(group, self._engine().clock, part, after, limit)
        return await self._read(lambda cx: look.browse(cx, page))

    async def differences(
        self, topics: Sequence[str], sources: Sequence[Source]
    ) -> Sequence[Difference]:
        """What is missing or otherwise."""
        catalog.check_names(topics, sources)
        return await self._read(lambda cx: catalog.differences(cx, topics, sources))

    async def unpark(self, source: Source, key: str) -> int:
        """Let a parked key go on without its dead letter; how many were held."""
        group = await self._group(source)
        held = await self._read(lambda cx: look.held_behind(cx, group, key))
        await self._write(lambda cx: catalog.unpark(cx, group, key))
        return held

    async def pause(self, source: Source) -> None:
        """Hand out nothing more of this group; its dead letters stay within reach."""
        group = await self._group(source)
        await self._write(lambda cx: catalog.pause(cx, group, is_paused=True))

    async def resume(self, source: Source) -> None:
        """Go on."""
        group = await self._group(source)
        await self._write(lambda cx: catalog.pause(cx, group, is_paused=False))

    async def retire(self, source: Source) -> None:
        """Forget this group with all that waits for it, dead letters too. Idempotent."""
        await self._write(lambda cx: catalog.retire(cx, source))

    async def read(
        self,
        topic: str,
        *,
        since: float = 0.0,
        until: float | None = None,
        after: str = "",
        last: str = "",
        limit: int = 500,
    ) -> Sequence[Glimpse]:
        """Kept messages of that window, oldest first; a position is a number.

        Raises `Misuse` when nothing is retained.
        """
        if not self._options.retain > 0:
            raise Misuse("this broker keeps no log: open it with retain=SECONDS (?retain=SECONDS)")
        asked = kept.window(topic, since=since, until=until, after=after, last=last, limit=limit)
        return await self._read(lambda cx: kept.read(cx, asked))

    # What they share

    def _engine(self) -> Engine:
        if self._is_closed:
            raise NotSent("the broker is closed")
        if self._pid != os.getpid():
            self._opened = None  # the parent's: see `forks`
            self._consumers.clear()
        if self._opened is None:
            self._pid = os.getpid()
            self._opened = Engine(self._options, self._clock)
        return self._opened

    async def _write(self, run: Callable[[Connection], Iterable[int]]) -> None:
        """Run a job that says in which topics there is something new."""
        engine = self._engine()
        with self._plain_errors():
            await engine.writer.do(run, engine.tell)

    async def _read(self, run: Callable[[Connection], R]) -> R:
        engine = self._engine()
        with self._plain_errors():
            return await engine.read(run)

    async def _group(self, source: Source) -> Group:
        group = await self._read(lambda cx: look.find(cx, source))
        if group is None:
            raise Misuse(f"there is no group {source}: ensure it first")
        return group

    @contextmanager
    def _plain_errors(self) -> Generator[None]:
        try:
            yield
        except Closed:
            raise NotSent("the broker is closed") from None
        except WriteFailed as error:
            raise Unavailable(f"{self._options.path}: {error}") from error


def _failure(message: Message, error: CallcastError) -> NotSent | Unanswered:
    """What became of one message of a batch that failed as a whole; the cause says why."""
    fault: NotSent | Unanswered
    if isinstance(error, WriteFailed) and not error.is_certain:
        detail = f"message {message.id!r} may have been stored: {error}"
        fault = Unanswered(detail, id=message.id)
    else:
        fault = NotSent(f"message {message.id!r} was not sent: {error}", id=message.id)
    fault.__cause__ = error
    return fault


async def _in_a_thread(run: Callable[[], None]) -> None:
    """Let a thread of its own run it, so that the loop goes on; no thread is left afterwards."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def work() -> None:
        try:
            run()
        finally:
            loop.call_soon_threadsafe(ended.set)

    thread = threading.Thread(target=work, name="callcast-close", daemon=True)
    thread.start()
    await ended.wait()
    thread.join()
