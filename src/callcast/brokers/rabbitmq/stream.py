"""pika's bytes over a transport of asyncio: larger reads, and writes that leave at once.

pika's own transport reads 4 KiB at a time, and writes only when the loop has found the socket to be
writable, which costs a turn of the loop and two system calls for each piece.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from pika.adapters.asyncio_connection import _AsyncioIOServicesAdapter as LoopServices  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
from pika.adapters.utils.nbio_interface import (
    AbstractIOReference,
    AbstractIOServices,
    AbstractStreamProtocol,
    AbstractStreamTransport,
)

READ_MAX = 65_536
"""Bytes that are read at once."""

Linked: TypeAlias = tuple[AbstractStreamTransport, AbstractStreamProtocol]
OnDone: TypeAlias = Callable[[BaseException | Linked], None]


_services: Any = cast("Any", LoopServices)  # private in pika, and not in its stubs


def services(loop: asyncio.AbstractEventLoop) -> AbstractIOServices:
    """What pika asks of a loop."""
    return cast("AbstractIOServices", _Streams(loop))


class _Streams(_services):  # type: ignore[misc]
    """What pika asks of a loop; streams are those of asyncio."""

    _loop: asyncio.AbstractEventLoop
    _schedule_and_wrap_in_io_ref: Callable[..., AbstractIOReference]

    def create_streaming_connection(  # noqa: PLR0917 - pika's
        self,
        protocol_factory: Callable[[], AbstractStreamProtocol],
        sock: socket.socket,
        on_done: OnDone,
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> AbstractIOReference:
        """Stream over a connected socket, which is the stream's from now on."""
        opening = self._loop.create_connection(
            Bridge, sock=sock, ssl=ssl_context, server_hostname=server_hostname
        )

        def opened(result: BaseException | tuple[asyncio.Transport, Bridge]) -> None:
            if isinstance(result, BaseException):
                on_done(result)
            else:
                on_done(result[1].link(protocol_factory))

        return self._schedule_and_wrap_in_io_ref(opening, opened)


class Bridge(asyncio.BufferedProtocol):
    """Between a transport of asyncio and a protocol of pika, whose methods have the same names.

    What is read goes into a buffer of its own: else the transport would ask the system for 256 KiB
    of memory for each answer of some bytes.
    """

    _transport: asyncio.Transport
    _protocol: AbstractStreamProtocol

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(READ_MAX))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is there; nothing is read from it until somebody listens."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream has
        self._transport = transport
        transport.pause_reading()

    def link(self, make: Callable[[], AbstractStreamProtocol]) -> BaseException | Linked:
        """Let both know each other: pika begins to talk, and wants to hear so in the same turn."""
        # It has all that pika asks of a stream's transport, by the same names.
        stream = cast("AbstractStreamTransport", self._transport)
        self._protocol = make()
        try:
            self._protocol.connection_made(stream)
        except Exception as error:  # noqa: BLE001 - pika's to tell
            self._transport.abort()
            return error
        self._transport.resume_reading()
        return stream, self._protocol

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what comes."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So much has come from the broker."""
        self._protocol.data_received(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        """The broker has closed; the transport closes too."""
        return bool(self._protocol.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, by whomever; also of a stream that nobody wanted any more."""
        if hasattr(self, "_protocol"):
            self._protocol.connection_lost(exc)
