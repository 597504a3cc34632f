"""Whether the effect of a dead letter is there already: asked of the services' own databases."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace

from callcast.cli.letters import Letter
from callcast.cli.opening import file_of
from callcast.core.message import Message
from callcast.ports.broker import Broker, Lag, Source
from callcast.ports.session import Database
from callcast.runtime import registry
from callcast.runtime.dead_count import IsHandled, dead_count
from callcast.runtime.ports import Ports
from callcast.stores.inbox import Inbox, arrival_of


class Inboxes:
    """The inboxes beside an embedded broker, opened as they are asked for."""

    def __init__(self, url: str, ports: Ports, stack: AsyncExitStack) -> None:
        self._url = url
        self._ports = ports
        self._stack = stack
        self._databases: dict[str, Database | None] = {}  # by service; None: there is none here
        self._inbox = Inbox("sqlite")

    async def judged(self, letter: Letter, message: Message) -> Letter:
        """The letter with `superseded` filled in, where its service's database can be read."""
        is_handled = self.of(letter.group)
        if is_handled is None:
            return letter
        return replace(letter, superseded=await is_handled(message))

    async def counted(self, broker: Broker, source: Source, lag: Lag) -> Lag:
        """The lag with the dead letters that count: those that are superseded do not."""
        is_handled = self.of(source.group)
        return replace(lag, dead=await dead_count(broker, source, lag.dead, is_handled=is_handled))

    def of(self, group: str) -> IsHandled | None:
        """Asks the inbox of a group whether it knows a message; None where it cannot be read."""
        database = self._database(group.partition(".")[0])
        if database is None:
            return None

        async def is_handled(message: Message) -> bool:
            return await self._inbox.knows(database, arrival_of(message, group))

        return is_handled

    def _database(self, service: str) -> Database | None:
        if service not in self._databases:
            path = self._beside(service)
            database = None if path is None else registry.sqlite_database(str(path), self._ports)
            if database is not None:
                self._stack.push_async_callback(database.close)
            self._databases[service] = database
        return self._databases[service]

    def _beside(self, service: str) -> Path | None:
        """The file that such a service has by default; None beside a server, where it has none."""
        if urlsplit(self._url).scheme != "sqlite":
            return None
        broker = file_of(self._url)
        path = broker.with_name(f"{broker.stem}.{service}.db")
        return path if path.exists() else None


@asynccontextmanager
async def inboxes(url: str, ports: Ports) -> AsyncGenerator[Inboxes]:
    """The inboxes beside the broker `url`, closed at the end."""
    async with AsyncExitStack() as stack:
        yield Inboxes(url, ports, stack)
