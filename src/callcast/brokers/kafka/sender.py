"""Publishing: an idempotent producer, and delivery reports resolved in bulk.

A thread of its own serves the producer. Each poll of it resolves any number of reports, and tells
the event loop of all batches that ended by them in one callback.
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
"""Seconds that the thread waits for a report before it looks whether any is to come."""
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
    """Parcels that are waited for together."""

    __slots__ = ("_loop", "_sender", "ended", "errors", "left")

    def __init__(self, sender: Sender, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._sender = sender
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.left: int = count  # changed by the sender's thread, and by `refused` before it may end
        self.errors: dict[int, KafkaError] = {}

    def report(self, index: int, error: KafkaError | None, _: Report) -> None:
        """Take the report of one parcel; in the sender's thread."""
        if error is not None:
            is_purged = error.code() == PURGED
            self.errors[index] = (self._sender.fatal if is_purged else None) or error
        self.one_less()

    def refused(self, index: int, error: KafkaError) -> None:
        """Note that one parcel was not even taken; in the loop's thread."""
        self.errors[index] = error
        self.one_less()

    def one_less(self) -> None:
        """Note one end; the last one ends the batch."""
        with self._sender.lock:
            self.left -= 1
            is_last = self.left == 0
        if is_last:
            self._sender.end(self._loop, self)


class Sender:
    """Stores parcels; `close` waits for what is under way."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._config = dict(config)
        self._producer = Producer(self._config)
        self._giving = threading.Lock()  # nothing is given to a producer that is being replaced
        self._broken: list[tuple[Producer, KafkaError]] = []  # to be purged by the thread
        self.lock: threading.Lock = threading.Lock()
        self._ended: dict[asyncio.AbstractEventLoop, list[Batch]] = {}  # under the lock
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
        batch = Batch(self, len(parcels) + 1)  # one more, so that it cannot end before all are in
        for index, parcel in enumerate(parcels):
            error = self._produce(parcel, partial(batch.report, index))
            while error is not None and error.code() == QUEUE_FULL:
                self._is_busy.set()
                await _pause(ROOM)
                error = self._produce(parcel, partial(batch.report, index))
            if error is not None:
                batch.refused(index, error)
        self._is_busy.set()
        batch.one_less()
        await batch.ended
        return batch.errors

    def end(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        """Note that a batch has ended; its loop hears of it after this poll."""
        with self.lock:
            waiting = self._ended.setdefault(loop, [])
            waiting.append(batch)
            is_first = len(waiting) == 1
        if is_first:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._resolve, loop)

    def close(self, timeout: float) -> None:
        """Wait for what is under way, then end. Blocks; not to be called twice."""
        with contextlib.suppress(KafkaException):  # fatal: whoever published was told
            self._producer.flush(timeout)
        self._is_stopping = True
        self._is_busy.set()
        self._thread.join()
        self._producer.close()

    def _produce(
        self, parcel: Parcel, report: Callable[[KafkaError | None, Report], None]
    ) -> KafkaError | None:
        error = self._give(parcel, report)
        if error is not None and error.code() == FATAL:  # it broke while nothing was sent
            self._replace(self._producer, error)
            error = self._give(parcel, report)
        return error

    def _give(
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
        while not self._is_stopping:
            self._is_busy.wait()
            self._is_busy.clear()
            while self._broken or len(self._producer):
                while self._broken:
                    self._purge(*self._broken.pop())
                producer = self._producer
                try:
                    producer.poll(POLL)
                except KafkaException as error:  # a fatal one: this producer sends no more
                    self._replace(producer, error.args[0])

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

    def _resolve(self, loop: asyncio.AbstractEventLoop) -> None:
        with self.lock:
            ended = self._ended.pop(loop, [])
        for batch in ended:
            if not batch.ended.done():
                batch.ended.set_result(None)


async def _pause(seconds: float) -> None:
    woken = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, woken.set)
    await woken.wait()
