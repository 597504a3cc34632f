"""A connection, as awaitables on the thread's loop; a loss is its users' matter."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Sequence

from pika import ConnectionParameters, PlainCredentials, SSLOptions
from pika.channel import Channel

from callcast.brokers.rabbitmq.address import Endpoint, Options
from callcast.brokers.rabbitmq.connection import Connection
from callcast.brokers.rabbitmq.faults import ChannelLost, of_channel, of_opening
from callcast.brokers.rabbitmq.port import Loop, Port, fail, fulfil, fulfilling
from callcast.core.errors import CallcastError, Misuse, Unavailable


class Link:
    """A connection to the first node that answers; made anew after a loss by whoever needs it."""

    def __init__(
        self, endpoints: Sequence[Endpoint], options: Options, *, name: str, loop: Loop
    ) -> None:
        self.endpoint: Endpoint = endpoints[0]
        self.is_blocked: bool = False
        """The broker has an alarm and takes no publishes."""
        self.version: str = ""
        self._endpoints = endpoints
        self._options = options
        self._name = name
        self._loop = loop
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._ports: set[Port] = set()
        self._unblocked: list[asyncio.Future[None]] = []
        self._alarmed: list[asyncio.Future[None]] = []
        self._is_closed = False

    @property
    def token(self) -> object:
        """The connection that there is now, to be told from another; None when there is none."""
        return self._connection

    async def open(self) -> None:
        """Connect unless connected; raises `Unavailable`, `NotPermitted` or `Misuse`."""
        async with self._opening:
            if self._connection is not None:
                return
            if self._is_closed:
                raise Unavailable("the broker is closed")
            self._connection = await self._connect()

    async def channel(self) -> Port:
        """A channel of its own."""
        await self.open()
        connection = self._connection
        if connection is None:
            raise ChannelLost(0, "the connection was lost")
        opened: asyncio.Future[Channel] = self._loop.create_future()
        try:
            channel = connection.channel(on_open_callback=fulfilling(opened))
        except Exception as error:
            raise of_channel(error) from error
        port = Port(connection, channel, self._loop)
        port.on_lost(lambda lost: fail(opened, lost))
        self._ports.add(port)
        port.on_lost(lambda _: self._ports.discard(port))
        await opened
        return port

    async def unblocked(self) -> None:
        """Return when the broker has no alarm."""
        while self.is_blocked:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._unblocked.append(waiter)
            await waiter

    async def blocked(self) -> None:
        """Return when the broker has an alarm; it says so when something was published."""
        while not self.is_blocked:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._alarmed.append(waiter)
            try:
                await waiter
            finally:
                self._alarmed.remove(waiter)

    async def close(self) -> None:
        """Close in order: what was written is read by the broker. Idempotent."""
        self._is_closed = True
        connection = self._connection
        if connection is None:
            return
        ended: asyncio.Future[None] = self._loop.create_future()
        connection.ended = ended
        if connection.is_open:
            connection.close()
        try:
            async with asyncio.timeout(self._options.connect_wait):
                await ended
        except TimeoutError:
            connection.abort()

    def abort(self) -> None:
        """Let go of a connection that says nothing any more."""
        if self._connection is not None:
            self._connection.abort()

    async def _connect(self) -> Connection:
        failure: CallcastError | None = None
        for endpoint in self._endpoints:
            try:
                connection = await self._connect_to(endpoint)
            except CallcastError as error:
                failure = failure or error
            else:
                self.endpoint = endpoint
                self.version = str((connection.server_properties or {}).get("version", ""))
                return connection
        assert failure is not None  # noqa: S101 - there is at least one endpoint
        raise failure

    async def _connect_to(self, endpoint: Endpoint) -> Connection:
        opened: asyncio.Future[None] = self._loop.create_future()
        parameters = _parameters(endpoint, self._options, self._name)

        def on_open(_: object) -> None:
            fulfil(opened, None)

        def on_error(_: object, error: str | BaseException) -> None:
            fail(opened, error if isinstance(error, BaseException) else ConnectionError(error))

        connection = Connection(
            parameters,
            on_open_callback=on_open,
            on_open_error_callback=on_error,
            on_close_callback=self._lost,
            loop=self._loop,
        )
        try:
            async with asyncio.timeout(self._options.connect_wait):
                await opened
        except TimeoutError as error:
            connection.abort()
            raise Unavailable(
                f"RabbitMQ at {endpoint} did not answer within {self._options.connect_wait:g} s:"
                " check host and port, and whether something between drops the packets"
            ) from error
        except Exception as error:
            raise of_opening(error, endpoint) from error
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(self._unblock)
        return connection

    def _blocked(self, *_: object) -> None:
        self.is_blocked = True
        for waiter in self._alarmed:
            fulfil(waiter, None)

    def _unblock(self, *_: object) -> None:
        self.is_blocked = False
        waiting, self._unblocked = self._unblocked, []
        for waiter in waiting:
            fulfil(waiter, None)

    def _lost(self, connection: object, error: Exception) -> None:
        if connection is self._connection:
            self._connection = None
            self._unblock()
        lost = of_channel(error)
        for port in list(self._ports):
            port.lose(lost)
        if isinstance(connection, Connection) and connection.ended is not None:
            fulfil(connection.ended, None)


def _parameters(endpoint: Endpoint, options: Options, name: str) -> ConnectionParameters:
    parameters = ConnectionParameters(
        host=endpoint.host,
        port=endpoint.port,
        virtual_host=endpoint.vhost,
        credentials=PlainCredentials(endpoint.user, endpoint.password),
        heartbeat=round(options.heartbeat),
        socket_timeout=options.connect_wait,
        stack_timeout=options.connect_wait,
        client_properties={"connection_name": name},
    )
    if endpoint.is_tls:
        parameters.ssl_options = _tls(endpoint, options)
    return parameters


def _tls(endpoint: Endpoint, options: Options) -> SSLOptions:
    try:
        context = ssl.create_default_context(cafile=options.ca or None)
        if options.cert:
            context.load_cert_chain(options.cert, options.key or None)
    except OSError as error:
        raise Misuse(f"the TLS files of {endpoint} cannot be read: {error}") from error
    if options.insecure:
        warnings.warn(
            f"{endpoint}: insecure=true believes any certificate; give ca=FILE instead",
            RuntimeWarning,
            stacklevel=2,
        )
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return SSLOptions(context, endpoint.host)
