"""pika's connection, with a shorter way for what comes and goes with each message.

Here and in `stream` stands all that uses what pika calls private; a test says so when it changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from pika import ConnectionParameters
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils.nbio_interface import AbstractStreamTransport
from pika.frame import decode_frame

from callcast.brokers.rabbitmq import deliveries, frames, times
from callcast.brokers.rabbitmq.deliveries import Came, Incomplete, Reader
from callcast.brokers.rabbitmq.stream import services

OnCame: TypeAlias = Callable[[Came], None]
OnConfirm: TypeAlias = Callable[[int, bool], None]
"""Told the number of a publish, and whether all before it are meant too."""


IMPOSSIBLE_TIME = (ValueError, OverflowError, OSError)
"""Raised where a time is read that cannot be; which one, by where the system ends its times."""


class Connection(AsyncioConnection):
    """Writes what one turn of the loop has to say in one piece: writes are what costs."""

    # Of pika, and not in its stubs, or without a type there.
    bytes_sent: int
    bytes_received: int
    _frame_buffer: bytes
    _transport: AbstractStreamTransport | None
    _process_frame: Callable[[object], None]

    def __init__(
        self, parameters: ConnectionParameters, *, loop: asyncio.AbstractEventLoop, **on: Any
    ) -> None:
        self._pieces: list[bytes] = []
        self._after: list[Callable[[], object]] = []
        self._reader = Reader()
        self.takers: dict[bytes, OnCame] = {}
        """Who takes the deliveries of a consumer, by its tag, which is of the whole connection."""
        self.confirmed: dict[int, OnConfirm] = {}
        """Who hears of confirms, by channel; of refusals pika tells."""
        self.ended: asyncio.Future[None] | None = None
        loop_of_pika = cast("Any", services(loop))  # which its stubs take for no loop
        super().__init__(parameters, custom_ioloop=loop_of_pika, **on)

    @property
    def body_max(self) -> int:
        """Bytes of a body that one frame holds, once it is open."""
        assert self.params is not None  # noqa: S101 - set by its constructor
        return int(self.params.frame_max) - frames.AROUND

    def write(self, data: bytes) -> None:
        """Have frames leave now, behind what this turn of the loop has said before."""
        self.bytes_sent += len(data)
        self._pieces.append(data)
        self._flush()

    def after_read(self, act: Callable[[], object]) -> None:
        """While something is taken: call this once when all that has come with it is taken too."""
        self._after.append(act)

    def abort(self) -> None:
        """Drop the transport: nothing more is read or written."""
        # As the stubs leave out this one, the end of a connection without a word. The driver wants
        # an error for it where it has none of its own: while a connection opens.
        self._terminate_stream(ConnectionError("dropped"))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._pieces:
            self.ioloop.call_soon(self._flush)
        self._pieces.append(data)

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and self._transport is not None:
            self._transport.write(b"".join(pieces))

    def _on_data_available(self, data_in: bytes) -> None:
        """Take what has come; what is no whole frame waits for the rest."""
        self.bytes_received += len(data_in)  # so that heartbeats know that the broker is there
        read = self._frame_buffer + data_in
        at, size = 0, len(read)
        try:
            while at + frames.AROUND <= size:
                at = self._take(read, at)
        except Incomplete:
            pass
        finally:
            self._frame_buffer = read[at:]
            after, self._after = self._after, []
            for act in after:
                act()

    def _take(self, read: bytes, at: int) -> int:
        """Take the frame that begins there, or a delivery; where the next one begins."""
        if taker := self.takers.get(deliveries.consumer_of(read, at)):
            came = self._came(read, at)
            if came is not None:
                taker(came)
                return came.end
        elif (confirm := frames.confirm(read, at)) and confirm.channel in self.confirmed:
            self.confirmed[confirm.channel](confirm.number, confirm.is_multiple)
            return confirm.end
        count, value = _decoded(read[at : frames.end_of(read, at)])
        if value is None:
            raise Incomplete
        self._process_frame(value)
        return at + count

    def _came(self, read: bytes, at: int) -> Came | None:
        try:
            return self._reader.came(read, at)
        except IMPOSSIBLE_TIME:
            return None  # read frame by frame, with that time as a number


def _decoded(frame: bytes) -> tuple[int, object]:
    try:
        return decode_frame(frame)
    except IMPOSSIBLE_TIME:
        return decode_frame(times.as_numbers(frame))
