"""Uvicorn, held so that its owner starts and stops it: it leaves signals and logging alone."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator

import uvicorn


class HttpServer:
    """Serves one ASGI application on one listening socket, until it is told to stop."""

    def __init__(self, app: object, listener: socket.socket, *, grace: float = 5.0) -> None:
        """`grace` is how many seconds `stop` lets requests under way run on."""
        self._listener = listener
        if listener.family in {socket.AF_INET, socket.AF_INET6}:
            # asyncio does so only for sockets made with an explicit protocol, which
            # `socket.create_server` does not; without it every kept connection waits 40 ms for
            # the delayed acknowledgement between an answer's head and its body.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]  # any ASGI application
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(grace)),
        )
        self._server = _Quiet(config)

    async def serve(self) -> None:
        """Serve until `stop`; then finish what is under way and close the socket."""
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        """Accept no more; `serve` returns soon. Idempotent."""
        self._server.should_exit = True


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the program."""
        yield
