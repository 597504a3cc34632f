"""The coalescer: single publishes gather into a batch while earlier ones are on their way."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence

from msgspec import Struct

from callcast.core.errors import CircuitOpen, NotSent, Unanswered, Unpublished
from callcast.core.message import Message
from callcast.policies.breaker import Breaker, Circuit, Phase
from callcast.policies.notes import summary
from callcast.policies.options import CircuitBreaker
from callcast.ports.broker import Broker
from callcast.ports.observer import CircuitChanged
from callcast.ports.tasks import Child, Tasks
from callcast.runtime.bell import Bell
from callcast.runtime.ports import Ports

BATCH_MAX_BYTES = 4_194_304
"""Bodies of one batch together: a group commit, or a frame, that does not hold up the others."""
LATE = "its deadline has passed"
"""Why a publish was given up."""


class Entry(Struct, eq=False):
    """One publish on its way.

    | state      | its deadline | cancelled | taken      | answered | closed       |
    |------------|--------------|-----------|------------|----------|--------------|
    | buffered   | `NotSent`    | purged    | under way  | -        | `NotSent`    |
    | under way  | `Unanswered` | forgotten | -          | ended    | `Unanswered` |
    """

    message: Message
    deadline: float
    ended: asyncio.Future[None]
    is_under_way: bool = False

    def fail(self, error: NotSent | Unanswered) -> None:
        """End it with this error, unless it has ended."""
        if not self.ended.done():
            self.ended.set_exception(error)

    def give_up(self, why: str) -> None:
        """End it without an answer: what that means depends on whether it has left."""
        which = f"message {self.message.id!r}"
        if self.is_under_way:
            self.fail(
                Unanswered(
                    f"{which} was handed to the broker and not confirmed: {why}; it may be stored:"
                    " publish it again under the same id",
                    id=self.message.id,
                )
            )
        else:
            self.fail(NotSent(f"{which} was not sent and will not be: {why}", id=self.message.id))


class Coalescer:
    """Between publishers and a broker: a batch is under way, the next one gathers meanwhile.

    Several are under way where that is worth it to the broker (`Traits.publishes_at_once`), but one
    only while its circuit is not closed. Each is then at most its share of `batch_max`: were all
    publishers to wait for the same batch, the broker would be idle while they go on.

    So nobody waits for a timer, and publishes of one key that are awaited one after the other keep
    their order. One that follows a batch of one finds itself alone again, most likely: it is sent
    from its own coroutine, which saves three turns of the loop. At most `waiting_max` publishes
    wait in memory; further ones wait outside, until there is room or their deadline has passed. A
    breaker stands before the broker and is asked once per batch: a failed batch is one failure.

    What waits here is lost with the process; its publisher has not been told that it was sent.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        ports: Ports,
        tasks: Tasks,
        breaker: CircuitBreaker | None = None,
        batch_max: int = 500,
        waiting_max: int = 10_000,
    ) -> None:
        self._broker = broker
        self._clock = ports.clock
        self._observer = ports.observer
        self._tasks = tasks
        self._waiting_max = waiting_max
        self._breaker = Breaker(breaker or CircuitBreaker(), lock=threading.Lock())
        self._buffer: deque[Entry] = deque()  # appended by `publish`, taken by the sending child
        self._under_way: list[Sequence[Entry]] = []
        self._flights: list[tuple[Child, Sequence[Entry]]] = []  # where several may be
        self._at_once = broker.traits.publishes_at_once
        self._batch_max = max(1, batch_max // self._at_once)
        self._is_alone = False  # the last batch was one message
        self._outside: deque[asyncio.Future[None]] = deque()  # publishers that wait for room
        self._bell = Bell()  # rung when the sending child has something to do
        self._sending: Child | None = None
        self._sweeping: Child | None = None
        self._sweep_at = 0.0
        self._closing: Child | None = None

    def publish(self, message: Message, deadline: float) -> Awaitable[None]:
        """Ends when the message is durable.

        `deadline` is monotonic. Raises `NotSent` when the message is surely not sent and will not
        be, `Unanswered` when it may be stored; both carry its id. Cancelled, a message that has
        not left is purged.
        """
        if len(self._buffer) >= self._waiting_max:
            return self._publish_later(message, deadline)
        if self._closing is not None:
            raise NotSent(f"message {message.id!r} was not sent: the bus is closed", id=message.id)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = Entry(message, deadline, ended)
        if self._is_alone and not self._under_way and not self._buffer:
            return self._send_alone(entry)
        self._buffer.append(entry)
        if self._bell.waiting is not None:
            self._bell.ring()
        if self._sending is None:
            self._sending = self._tasks.start(self._send_on(), name="coalescer: send")
        if self._sweeping is None or deadline < self._sweep_at:
            self._sweep_by(deadline)
        return ended

    async def close(self, until: float) -> None:
        """Take no more, send what waits by `until` (monotonic), give up the rest. Idempotent."""
        if self._closing is None:
            self._closing = self._tasks.start(self._close(until), name="coalescer: close")
        await self._closing.wait()

    async def _close(self, until: float) -> None:
        self._bell.ring()
        if self._sending is not None:
            try:
                with self._clock.expire_at(until, coarse=False):
                    await self._sending.wait()
            except TimeoutError:  # what is left is given up, each with its own error
                self._sending.cancel()
                await self._sending.wait()
        if self._sweeping is not None:
            self._sweeping.cancel()

    # Sending

    async def _send_on(self) -> None:
        try:
            while True:
                batch = () if self._is_full else self._take()
                if batch:
                    self._is_alone = len(batch) == 1
                    await self._depart(batch)
                elif self._closing is None or self._under_way:
                    await self._bell.wait()
                else:
                    return
        finally:
            for child, batch in self._flights:
                child.cancel()
                _give_up_all(batch, "the bus is closed")
            _give_up_all(self._buffer, "the bus is closed")
            self._buffer.clear()
            self._let_in()

    @property
    def _is_full(self) -> bool:
        """Whether no further batch is to leave now."""
        is_one = self._breaker.state is not Circuit.CLOSED
        return len(self._under_way) >= (1 if is_one else self._at_once)

    async def _depart(self, batch: Sequence[Entry]) -> None:
        """Send a batch; return as soon as the next one may leave."""
        self._under_way.append(batch)
        if self._at_once == 1:
            await self._send(batch)
            return
        child = self._tasks.start(self._fly(batch), name="coalescer: batch")
        self._flights = [each for each in self._flights if not each[0].done]
        self._flights.append((child, batch))

    async def _fly(self, batch: Sequence[Entry]) -> None:
        try:
            await self._send(batch)
        finally:
            self._bell.ring()

    async def _send_alone(self, entry: Entry) -> None:
        """Send one from its publisher's coroutine, past the sending child, which waits meanwhile.

        Cancelled, it may be sent all the same.
        """
        if entry.deadline <= self._clock.now():
            entry.give_up(LATE)
        try:
            if not entry.ended.done():
                self._under_way.append(batch := (entry,))
                await self._send(batch, coarse=False)
        except BaseException:
            if entry.ended.done():
                entry.ended.exception()  # seen: the error that is on its way says more
            raise
        finally:
            if self._buffer or self._closing is not None:
                self._bell.ring()
        await entry.ended

    def _take(self) -> Sequence[Entry]:
        """The next batch, without what was cancelled or is past its deadline."""
        buffer = self._buffer
        now = self._clock.now()
        batch: list[Entry] = []
        size = 0
        while buffer and len(batch) < self._batch_max and size < BATCH_MAX_BYTES:
            entry = buffer.popleft()
            if entry.deadline <= now:
                entry.give_up(LATE)
            elif not entry.ended.done():
                batch.append(entry)
                size += len(entry.message.body)
        self._let_in()
        return batch

    async def _send(self, batch: Sequence[Entry], *, coarse: bool = True) -> None:
        """Send a batch that is among those under way."""
        try:
            start = self._clock.now()
            token = self._breaker.admit(start)
            self._tell_changes()
            if token is None:
                for entry in batch:
                    entry.fail(self._open(entry.message, start))
                return
            for entry in batch:
                entry.is_under_way = True
            is_failed = True
            try:
                is_failed = await self._publish(batch, coarse=coarse)
            finally:
                self._record(token, is_failed=is_failed)
        finally:
            self._under_way.remove(batch)

    async def _publish(self, batch: Sequence[Entry], *, coarse: bool) -> bool:
        """Publish a batch and end its entries; whether the broker failed."""
        last = max(entry.deadline for entry in batch)
        try:
            with self._clock.expire_at(last, coarse=coarse):
                await self._broker.publish([entry.message for entry in batch])
        except Unpublished as error:
            _end_all(batch, error.errors)
            return any(map(_is_the_brokers, error.errors))
        except NotSent as error:
            _end_all(batch, [_one_of(error) for _ in batch])
            return True
        except BaseException as error:
            is_late = isinstance(error, TimeoutError) and self._clock.now() >= last
            # Whatever it was, they may be stored.
            _give_up_all(batch, LATE if is_late else summary(error))
            if not isinstance(error, Exception):
                raise
            return True
        _confirm_all(batch)
        return False

    def _record(self, token: Phase, *, is_failed: bool) -> None:
        self._breaker.record(token, self._clock.now(), failed=is_failed, slow=False)
        self._tell_changes()

    def _open(self, message: Message, now: float) -> CircuitOpen:
        error = CircuitOpen(
            f"message {message.id!r} was not sent: the circuit of the broker is"
            f" {self._breaker.state}",
            retry_after=self._breaker.retry_in(now),
        )
        error.id = message.id
        return error

    def _tell_changes(self) -> None:
        changes = self._breaker.changes
        peer = self._broker.traits.name if changes else ""
        while changes:
            change = changes.popleft()
            self._observer.tell(CircuitChanged(peer, change.before, change.after, change.reason))

    # Room

    async def _publish_later(self, message: Message, deadline: float) -> None:
        await self._find_room(message, deadline)
        await self.publish(message, deadline)

    async def _find_room(self, message: Message, deadline: float) -> None:
        try:
            with self._clock.expire_at(deadline, coarse=False):
                while len(self._buffer) >= self._waiting_max:
                    room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._outside.append(room)
                    await room
        except TimeoutError as error:
            raise NotSent(
                f"message {message.id!r} was not sent: {self._waiting_max} others waited before it"
                " until its deadline; publish less at once, or give it longer",
                id=message.id,
            ) from error

    def _let_in(self) -> None:
        room = self._waiting_max - len(self._buffer)
        while room > 0 and self._outside:
            waiter = self._outside.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

    # Deadlines: one sweep for all, at the earliest of them

    def _sweep_by(self, when: float) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._sweep_at = when
        self._sweeping = self._tasks.start(self._sweep(), name="coalescer: deadlines")

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(self._sweep_at - self._clock.now())
            now = self._clock.now()
            kept: deque[Entry] = deque()
            for entry in self._buffer:
                if entry.deadline <= now:
                    entry.give_up(LATE)
                elif not entry.ended.done():
                    kept.append(entry)
            self._buffer = kept
            under_way = [entry for batch in self._under_way for entry in batch]
            for entry in under_way:
                if entry.deadline <= now:
                    entry.give_up(LATE)
            self._let_in()
            open_entries = [*kept, *(entry for entry in under_way if not entry.ended.done())]
            if not open_entries:
                self._sweeping = None
                return
            self._sweep_at = min(entry.deadline for entry in open_entries)


def _confirm_all(batch: Iterable[Entry]) -> None:
    for entry in batch:
        ended = entry.ended
        if not ended.done():
            ended.set_result(None)


def _end_all(batch: Sequence[Entry], faults: Sequence[NotSent | Unanswered | None]) -> None:
    for entry, fault in zip(batch, faults, strict=True):
        if fault is not None:
            fault.id = fault.id or entry.message.id
            entry.fail(fault)
        elif not entry.ended.done():
            entry.ended.set_result(None)


def _give_up_all(entries: Iterable[Entry], why: str) -> None:
    for entry in entries:
        entry.give_up(why)


def _one_of(error: NotSent) -> NotSent:
    """The error of a batch for one of its messages."""
    fault = NotSent(str(error))
    fault.__cause__ = error
    return fault


def _is_the_brokers(fault: NotSent | Unanswered | None) -> bool:
    """Whether the broker failed; a refusal without a cause is about the message alone."""
    return isinstance(fault, Unanswered) or (fault is not None and fault.__cause__ is not None)
