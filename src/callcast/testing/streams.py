"""Connections through the proxy: each direction carries bytes, then an end, when it may.

On the proxy's loop only. All that one side says travels through its direction, its end too: behind
a cut nobody hears that the other one has closed.

| a side's connection | travels as | and is told to the other side as              |
|---------------------|------------|-----------------------------------------------|
| has data            | bytes      | the same bytes, in order, perhaps later       |
| is shut for writing | FIN        | shut for writing; after both, both are closed |
| is lost             | RST        | reset                                         |
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias

HELD_MAX_BYTES = 65_536
"""What a direction reads ahead of what it may pass on; more stays with the sender."""
LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER: a close throws away what is unsent and says RST."""

Loop: TypeAlias = asyncio.AbstractEventLoop


class End(enum.Enum):
    """How one side stopped to speak."""

    FIN = "fin"
    RST = "rst"


@dataclass
class Weather:
    """What is wrong between client and server; all connections share it."""

    holds_up: bool = False
    """From client to server nothing comes through."""
    holds_down: bool = False
    is_vanished: bool = False
    """The server's machine is gone: nobody answers, nobody closes."""
    is_refusing: bool = False
    """Connections are reset as soon as they are there."""
    delay: float = 0.0
    """Seconds that each byte takes longer, in each direction."""


class Direction:
    """What one side says, on its way to the other."""

    def __init__(self, loop: Loop, on_end: Callable[[], None]) -> None:
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        """None until it is connected."""
        self.delay: float = 0.0
        self.is_held: bool = False
        self.is_lost: bool = False
        """All that comes is thrown away."""
        self.is_full: bool = False
        """The sink takes no more for now."""
        self.ended: End | None = None
        """What was told to the sink."""
        self._loop = loop
        self._on_end = on_end
        self._queue: deque[tuple[float, bytes | End]] = deque()
        self._waiting_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, piece: bytes | End) -> None:
        """The source has said this."""
        if self.is_lost:
            return
        self._queue.append((self._loop.time() + self.delay, piece))
        self._waiting_bytes += len(piece) if isinstance(piece, bytes) else 0
        self.pump()

    def pump(self) -> None:
        """Pass on what may go now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and self.sink is not None and not (self.is_held or self.is_full):
            due, piece = self._queue[0]
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self.pump)
                break
            self._queue.popleft()
            self._pass_on(piece, self.sink)
        self._read_or_wait()

    def lose(self) -> None:
        """Throw away what is on its way, and what will come."""
        self.is_lost = True
        self._queue.clear()
        self._waiting_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass_on(self, piece: bytes | End, sink: asyncio.Transport) -> None:
        if isinstance(piece, bytes):
            self._waiting_bytes -= len(piece)
            sink.write(piece)
            return
        self.ended = piece
        if piece is End.RST:
            reset(sink)
        elif not sink.is_closing():
            with suppress(OSError):  # its other end is gone already, and the loop not told yet
                sink.write_eof()
        self._on_end()

    def _read_or_wait(self) -> None:
        source = self.source
        if source is None or source.is_closing():
            return
        if self.is_full or self._waiting_bytes > HELD_MAX_BYTES:
            source.pause_reading()
        else:
            source.resume_reading()


class Pair:
    """A client's connection, and the one to the server that stands for it."""

    def __init__(self, loop: Loop, watch: Watch) -> None:
        self.up: Direction = Direction(loop, self._finish)
        """From client to server."""
        self.down: Direction = Direction(loop, self._finish)
        self.client: Side = Side(self, self.up, self.down)
        self.server: Side = Side(self, self.down, self.up)
        self.is_connecting: bool = False
        """The connection to the server is under way."""
        self._watch = watch
        self._is_dropping = False

    def obey(self, weather: Weather) -> None:
        """Let through what may come through."""
        self.up.is_held, self.down.is_held = weather.holds_up, weather.holds_down
        self.up.delay = self.down.delay = weather.delay
        self.up.pump()
        self.down.pump()

    def reset(self) -> None:
        """End both connections with RST."""
        self._lose_all()
        for side in (self.client, self.server):
            if side.transport is not None:
                reset(side.transport)

    def vanish(self) -> None:
        """The server loses its client with RST; the client hears nothing any more."""
        self._lose_all()
        if self.server.transport is not None:
            reset(self.server.transport)

    @property
    def is_gone(self) -> bool:
        """Nothing is left of it."""
        return self.client.is_gone and self.server.is_gone and not self.is_connecting

    # Told by its sides

    def made(self, side: Side) -> None:
        """A side is connected."""
        if side is self.client:
            self._watch.made(self)

    def said(self, side: Side, data: bytes) -> None:
        """A side has said this."""
        if side is self.client:
            self._is_dropping = self._watch.drops(self, data) or self._is_dropping
            self.up.take(data)
        elif self._is_dropping:
            self._drop()
        else:
            self.down.take(data)

    def lost(self, side: Side) -> None:
        """The connection of a side has ended."""
        speaks, hears = (self.up, self.down) if side is self.client else (self.down, self.up)
        hears.lose()
        if speaks.ended is None:
            speaks.take(End.RST)
        self._watch.lost(self)

    # Inside

    def _drop(self) -> None:
        """The request has arrived and was answered; only its sender will never know."""
        if self.down.is_lost:
            return
        self._lose_all()
        if self.client.transport is not None:
            reset(self.client.transport)
        if self.server.transport is not None:
            self.server.transport.close()  # in order: the server reads all that was said to it
        self._watch.dropped()

    def _lose_all(self) -> None:
        self.up.lose()
        self.down.lose()

    def _finish(self) -> None:
        """Close both once each has said its last word."""
        if self.up.ended is End.FIN and self.down.ended is End.FIN:
            for side in (self.client, self.server):
                if side.transport is not None:
                    side.transport.close()


class Watch(Protocol):
    """Who is told about pairs, and decides."""

    def made(self, pair: Pair) -> None:
        """Its client is there."""
        ...

    def drops(self, pair: Pair, data: bytes) -> bool:
        """Its client says this: is the answer to be dropped?"""
        ...

    def dropped(self) -> None:
        """It was."""
        ...

    def lost(self, pair: Pair) -> None:
        """One of its sides has ended."""
        ...


class Side(asyncio.Protocol):
    """One of the two connections of a pair."""

    def __init__(self, pair: Pair, speaks: Direction, hears: Direction) -> None:
        self.transport: asyncio.Transport | None = None
        self.is_gone: bool = True
        self._pair = pair
        self._speaks = speaks
        self._hears = hears

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there: what waits for it may go."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = self._speaks.source = self._hears.sink = transport
        self.is_gone = False
        self._hears.pump()
        self._pair.made(self)

    def data_received(self, data: bytes) -> None:
        """It said this."""
        self._pair.said(self, data)

    def eof_received(self) -> bool:
        """It says no more, and still listens."""
        self._speaks.take(End.FIN)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, by whoever."""
        del exc
        self.is_gone = True
        self._pair.lost(self)

    def pause_writing(self) -> None:
        """It takes no more for now."""
        self._hears.is_full = True
        self._hears.pump()

    def resume_writing(self) -> None:
        """It takes more."""
        self._hears.is_full = False
        self._hears.pump()


def reset(transport: asyncio.Transport) -> None:
    """End a connection with RST, now."""
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    transport.abort()
