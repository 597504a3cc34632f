"""Publishing: an idempotent producer, and delivery reports resolved in bulk.

A thread of its own serves the producer. While a batch is given to the producer, that lingers, so
that records leave together: one request costs as much as twenty records. Once the batch is
complete, the thread flushes, which ends the lingering and hears the reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Report
from confluent_kafka._types import HeadersType
from msgspec import Struct

from callcast.brokers.kafka.codes import FATAL, PURGED, QUEUE_FULL
from callcast.brokers.kafka.wire import Headers

POLL = 0.1
"""Seconds that the thread waits for reports before it looks whether any is to come."""
TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE
ROOM = 0.05
"""Seconds to wait for room in the producer's queue."""


class Parcel(Struct, frozen=True, gc=False):
    """One record to be stored."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int = -1
    """-1: by the key, as Java does (murmur2); by chance where there is none."""
    time: int = 0
    """Milliseconds since the epoch; 0 is now."""


class Batch:
    """Parcels that are waited for together.

    Two threads count, each what is its own. Either may find that all have ended, or both.
    """

    __slots__ = ("_loop", "_reported", "_sender", "_taken", "ended", "errors", "refused")

    def __init__(self, sender: Sender) -> None:
        self._loop = asyncio.get_running_loop()
        self._sender = sender
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.refused: dict[int, KafkaError] = {}  # not even taken; changed in the loop's thread
        self.errors: dict[int, KafkaError] = {}  # changed in the sender's, until it has ended
        self._taken = -1  # by the producer, once all are given; changed in the loop's thread
        self._reported = 0  # changed in the sender's thread

    def report(self, index: int, error: KafkaError | None, _: Report) -> None:
        """Take the report of one parcel; in the sender's thread."""
        if error is not None:
            is_purged = error.code() == PURGED
            self.errors[index] = (self._sender.fatal if is_purged else None) or error
        self._reported += 1
        if self._reported == self._taken:
            self._sender.end(self._loop, self)

    def given(self, count: int) -> None:
        """Note that all `count` were given, and what was not refused was taken."""
        self._taken = count - len(self.refused)
        # Looked at after it is set, and the other thread does both in the other order: one sees it.
        if self._reported == self._taken and not self.ended.done():
            self.ended.set_result(None)


class Sender:
    """Stores parcels; `close` waits for what is under way."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._config = dict(config)
        self._producer = Producer(self._config)
        self._giving = threading.Lock()  # nothing is given to a producer that is being replaced
        self._broken: list[tuple[Producer, KafkaError]] = []  # to be purged by the thread
        self._ended: dict[asyncio.AbstractEventLoop, list[Batch]] = {}  # of the sender's thread
        self._under_way = 0  # batches; changed under the lock above
        self.fatal: KafkaError | None = None
        """Why what is purged now was not sent; of the sender's thread."""
        self._is_stopping = False
        self._is_busy = threading.Event()  # set when something was given to the producer
        self._thread = threading.Thread(target=self._serve, name="callcast-kafka-send", daemon=True)
        self._thread.start()

    async def send(self, parcels: Sequence[Parcel]) -> Mapping[int, KafkaError]:
        """Store all; the errors of those that were not, by their place. Empty: all are durable.

        Cancelled, what was taken may still be stored.
        """
        errors = await self._send(parcels)
        if len(parcels) > 1 and any(error.code() == TOO_LARGE for error in errors.values()):
            await self._send_apart(parcels, errors)
        return errors

    async def _send_apart(self, parcels: Sequence[Parcel], errors: dict[int, KafkaError]) -> None:
        """Send again, each alone, what the server has refused together with what is too large.

        Not where a key has several parcels: those behind it may be stored, those before refused.
        """
        keys = Counter((parcel.topic, parcel.key) for parcel in parcels)
        for place, error in sorted(errors.items()):
            parcel = parcels[place]
            is_alone = parcel.key is None or keys[parcel.topic, parcel.key] == 1
            if error.code() == TOO_LARGE and is_alone:
                del errors[place]
                for again in (await self._send([parcel])).values():
                    errors[place] = again

    async def _send(self, parcels: Sequence[Parcel]) -> dict[int, KafkaError]:
        if not parcels:
            return {}
        batch, given = Batch(self), 0
        with self._giving:
            self._under_way += 1
        try:
            while (given := self._give(parcels, batch, given)) < len(parcels):
                self._is_busy.set()
                await _pause(ROOM)
            batch.given(len(parcels))
            self._is_busy.set()
            await batch.ended
        finally:
            with self._giving:
                self._under_way -= 1
        return batch.errors | batch.refused

    def end(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        """Note that a batch has ended; in the sender's thread."""
        self._ended.setdefault(loop, []).append(batch)
        if self._under_way > 1:  # else the flush ends now
            self._tell()

    def _tell(self) -> None:
        """Tell the loops which of their batches have ended."""
        ended, self._ended = self._ended, {}
        for loop, batches in ended.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, batches)

    def close(self) -> None:
        """Wait for what is under way, then end. Blocks; not to be called twice."""
        self._is_stopping = True
        self._is_busy.set()
        self._thread.join()
        self._producer.close()

    def _give(self, parcels: Sequence[Parcel], batch: Batch, start: int) -> int:
        """Give the producer what it has room for, from `start` on; how many it has then."""
        for index in range(start, len(parcels)):
            parcel, report = parcels[index], partial(batch.report, index)
            error = self._produce(parcel, report)
            if error is not None and error.code() == FATAL:  # it broke while nothing was sent
                self._replace(self._producer, error)
                error = self._produce(parcel, report)
            if error is not None:
                if error.code() == QUEUE_FULL:
                    return index
                batch.refused[index] = error
        return len(parcels)

    def _produce(
        self, parcel: Parcel, report: Callable[[KafkaError | None, Report], None]
    ) -> KafkaError | None:
        try:
            with self._giving:
                self._producer.produce(
                    parcel.topic,
                    parcel.value,
                    parcel.key,
                    parcel.partition,
                    on_delivery=report,
                    timestamp=parcel.time,
                    headers=cast("HeadersType", parcel.headers),  # lists are invariant
                )
        except BufferError:
            return KafkaError(QUEUE_FULL)
        except KafkaException as error:
            found: KafkaError = error.args[0]
            return found
        return None

    def _serve(self) -> None:
        is_last = False
        while not is_last:
            self._is_busy.wait()
            self._is_busy.clear()
            is_last = self._is_stopping  # looked at first: what was given before is still served
            while self._broken or len(self._producer):
                while self._broken:
                    self._purge(*self._broken.pop())
                producer = self._producer
                try:
                    producer.flush(POLL)
                except KafkaException as error:  # a fatal one: this producer sends no more
                    self._replace(producer, error.args[0])
                self._tell()

    def _replace(self, broken: Producer, fatal: KafkaError) -> None:
        """Go on with a new producer, unless another thread has seen to it."""
        with self._giving:
            if broken is self._producer:
                self._producer = Producer(self._config)
                self._broken.append((broken, fatal))
        self._is_busy.set()

    def _purge(self, broken: Producer, fatal: KafkaError) -> None:
        """What a producer has not sent gets the error that it broke by."""
        self.fatal = fatal
        broken.purge()
        while len(broken):
            with contextlib.suppress(KafkaException):  # the same one, told again
                broken.poll(POLL)
        self.fatal = None
        broken.close()


def _resolve(batches: Sequence[Batch]) -> None:
    for batch in batches:
        if not batch.ended.done():
            batch.ended.set_result(None)


async def _pause(seconds: float) -> None:
    woken = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, woken.set)
    await woken.wait()
