"""A TCP proxy that breaks the network between a client and a server, on demand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

from callcast.core.errors import Misuse
from callcast.testing.streams import Pair, Weather

R = TypeVar("R")

ANSWER = 10.0
"""Seconds in which the proxy's own thread does what it is asked."""


class Proxy:
    """Stands between clients and one server, and lets through what a test allows.

        with Proxy.to(server_url) as proxy:
            async with Bus(proxy.through(server_url)) as bus:
                proxy.blackhole()
                ...
                proxy.heal()

    It knows no protocol. A fault holds when the method that made it returns; it is for all
    connections, those that are open and those to come, and adds to the others until `heal`:

    =============== ============================================ ================================
    fault           connections that are open                    new ones
    =============== ============================================ ================================
    `blackhole`     stay open, and nothing passes; `heal` lets    are accepted and hear nothing;
                    what waited go on, as TCP's repeats would     they go on after `heal`
    `cut_up`        the server hears nothing                      the same
    `cut_down`      the client hears nothing                      the same
    `vanish`        half-open: the server has lost its client,    are accepted, nobody answers;
                    which hears nothing; `heal` resets them       `heal` resets them
    `reset`         are reset (RST), both sides, once             pass
    `refuse`        are reset                                     are reset
    `drop_reply`    the next request arrives; its answer is       the same
                    dropped and its client reset, once
    `delay`         each byte comes later, each way               the same
    =============== ============================================ ================================

    The proxy has a thread and a loop of its own, so that a blocked or killed client changes
    nothing for the others. Its methods are plain, may be called from any thread, and take
    milliseconds. It listens on 127.0.0.1 from `start` to `close`, or inside ``with``; on a free
    port, or on `listen` where clients are told one: Kafka's go where the server says that it is.
    """

    def __init__(self, host: str, port: int, *, listen: int = 0) -> None:
        self._target = (host, port)
        self._listen = listen
        self._port = 0
        self._weather = Weather()
        self._watch = _Watch(self._welcome, self._forget)
        self._pairs: set[Pair] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None

    @classmethod
    def to(cls, url: str) -> Self:
        """A proxy to the server of that URL, which must name a port."""
        parts = urlsplit(url)
        if not parts.hostname or not parts.port:
            raise Misuse(f"a proxy to {parts.scheme}://...: name host and port in the URL")
        return cls(parts.hostname, parts.port)

    def through(self, url: str) -> str:
        """The same URL by way of this proxy."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}").geturl()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        if not self._port:
            raise Misuse("this proxy does not listen: start it, or use it in a with statement")
        return self._port

    @property
    def accepted(self) -> int:
        """Connections of clients so far."""
        return self._watch.accepted

    @property
    def dropped(self) -> int:
        """Answers that `drop_reply` has kept from their client: whether the fault has struck."""
        return self._watch.answers_dropped

    @property
    def open_connections(self) -> int:
        """Clients that have a connection now."""
        return self._do(lambda: sum(not pair.client.is_gone for pair in self._pairs))

    # Life

    def start(self) -> Self:
        """Listen."""
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="callcast-proxy", daemon=True)
        self._thread.start()
        self._server = self._wait_for(loop.create_server(self._accept, "127.0.0.1", self._listen))
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    def close(self) -> None:
        """Reset all connections and listen no more. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            self._port = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Faults

    def heal(self) -> None:
        """Let everything through again; what was half-open is reset, as by a host that rebooted."""
        self._set(Weather())

    def blackhole(self) -> None:
        """Let nothing through, either way, and close nothing."""
        self._set(replace(self._weather, holds_up=True, holds_down=True))

    def cut_up(self) -> None:
        """Let nothing through from client to server."""
        self._set(replace(self._weather, holds_up=True))

    def cut_down(self) -> None:
        """Let nothing through from server to client."""
        self._set(replace(self._weather, holds_down=True))

    def vanish(self) -> None:
        """Take the server away without a word: connections stay half-open, nobody answers."""
        self._set(replace(self._weather, is_vanished=True))
        self._each(Pair.vanish)

    def reset(self) -> None:
        """Reset all connections that are open now."""
        self._each(Pair.reset)

    def refuse(self) -> None:
        """Reset all connections, and each new one as soon as it is there."""
        self._set(replace(self._weather, is_refusing=True))
        self.reset()

    def delay(self, seconds: float) -> None:
        """Have each byte come so much later, each way; order stays."""
        self._set(replace(self._weather, delay=seconds))

    def drop_reply(self, request: bytes = b"") -> None:
        """Let the next request through that holds these bytes, and drop what the server answers.

        The client is reset at the moment at which it would hear the answer: the request has
        arrived, and the server had something to say afterwards. Empty bytes mean any request.
        """
        self._do(lambda: self._watch.arm(request))

    # On the loop

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        asyncio.set_event_loop(loop)
        loop.run_forever()
        loop.run_until_complete(self._end(loop))
        loop.close()

    async def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connecting):
            task.cancel()
        while self._pairs or self._connecting:
            for pair in list(self._pairs):
                pair.reset()
            turned: asyncio.Future[None] = loop.create_future()
            loop.call_soon(turned.set_result, None)
            await turned

    def _accept(self) -> asyncio.BaseProtocol:
        pair = Pair(asyncio.get_running_loop(), self._watch)
        self._pairs.add(pair)
        return pair.client

    def _welcome(self, pair: Pair) -> None:
        """Connect this client to the server, if the weather lets it."""
        weather = self._weather
        pair.obey(weather)
        if weather.is_refusing:
            pair.reset()
        elif not weather.is_vanished and not (weather.holds_up and weather.holds_down):
            pair.is_connecting = True
            task = asyncio.get_running_loop().create_task(self._connect(pair))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, pair: Pair) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: pair.server, *self._target)
            if self._weather.is_vanished or pair.client.is_gone:
                pair.vanish()  # meanwhile
        except OSError:
            pair.reset()  # the server is not there, and this is how its client may know
        finally:
            pair.is_connecting = False
            self._forget(pair)

    def _set(self, weather: Weather) -> None:
        def obey() -> None:
            was, self._weather = self._weather, weather
            is_back = was.is_vanished and not weather.is_vanished
            for pair in list(self._pairs):
                if is_back:
                    pair.reset()  # as a host that was started again does
                elif pair.server.transport is None and not pair.is_connecting:
                    self._welcome(pair)
                else:
                    pair.obey(weather)

        self._do(obey)

    def _forget(self, pair: Pair) -> None:
        if pair.is_gone:
            self._pairs.discard(pair)
            self._watch.heard.pop(pair, None)

    # From other threads

    def _do(self, act: Callable[[], R]) -> R:
        async def run() -> R:
            return act()

        return self._wait_for(run())

    def _each(self, act: Callable[[Pair], None]) -> None:
        def run() -> None:
            for pair in list(self._pairs):
                act(pair)

        self._do(run)

    def _wait_for(self, work: Coroutine[object, object, R]) -> R:
        if self._loop is None:
            work.close()
            raise Misuse("this proxy does not listen: start it, or use it in a with statement")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER)


class _Watch:
    """What the proxy hears of its pairs, and which answer it is to drop. On the loop."""

    def __init__(self, on_made: Callable[[Pair], None], on_lost: Callable[[Pair], None]) -> None:
        self.accepted: int = 0
        self.answers_dropped: int = 0
        self.heard: dict[Pair, bytes] = {}
        """The last bytes of clients, while a request is wanted: it may come in pieces."""
        self._on_made = on_made
        self._on_lost = on_lost
        self._wanted: bytes | None = None

    def made(self, pair: Pair) -> None:
        """A client is there."""
        self.accepted += 1
        self._on_made(pair)

    def lost(self, pair: Pair) -> None:
        """A side has ended."""
        self._on_lost(pair)

    def arm(self, request: bytes) -> None:
        """The answer to the next request that holds these bytes is to be dropped."""
        self._wanted = request
        self.heard.clear()

    def drops(self, pair: Pair, data: bytes) -> bool:
        """Whether that is this one."""
        if self._wanted is None:
            return False
        text = self.heard.get(pair, b"") + data
        if self._wanted not in text:
            self.heard[pair] = text[-len(self._wanted) :]
            return False
        self._wanted = None
        return True

    def dropped(self) -> None:
        """It was."""
        self.answers_dropped += 1
