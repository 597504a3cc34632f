"""The unit of work behind a `Transaction`: begins late, commits once, knows its twin."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from callcast.core.errors import Duplicate, Misuse
from callcast.core.message import Message
from callcast.ports.failpoints import Failpoints
from callcast.ports.session import Database, Session, in_one_go
from callcast.stores.inbox import Arrival, Inbox, Seen
from callcast.stores.outbox import Outbox

SENDS_MAX = 10_000
"""Messages of one transaction: they are written while everybody else waits for its lock."""


class State(enum.Enum):
    """Of a unit."""

    IDLE = "idle"
    OPEN = "open"
    DUPLICATE = "duplicate"
    ENDED = "ended"


class Unit:
    """One commit of inbox row, business rows and outbox rows.

    | state     | `session`                  | `hold`      | `commit`             | `roll_back` |
    |-----------|----------------------------|-------------|----------------------|-------------|
    | idle      | inbox row first: open;     | kept        | as open; nothing to  | ended       |
    |           | known: duplicate           |             | write: ended         |             |
    | open      | the session                | kept        | COMMIT, ended        | ended       |
    | duplicate | `Duplicate`                | `Duplicate` | `Duplicate`          | -           |
    | ended     | `Misuse`                   | `Misuse`    | `Misuse`             | -           |

    Messages are kept in memory and written just before the commit, so that a handler that only
    sends holds no lock while it runs.
    """

    def __init__(
        self,
        database: Database,
        stores: tuple[Outbox, Inbox],
        failpoints: Failpoints,
        *,
        arrival: Arrival | None = None,
        wait: float = 5.0,
    ) -> None:
        self.arrival = arrival
        self.seen: Seen | None = None
        """What a faster twin has committed; set with the state `duplicate`."""
        self._database = database
        self._outbox, self._inbox = stores
        self._reach = failpoints
        self._wait = wait
        self.is_committing: bool = False
        """COMMIT was sent: from here on an error may come too late to undo anything."""
        self._state = State.IDLE
        self._manager: AbstractAsyncContextManager[Session]
        self._session: Session
        self._held: list[Message] = []
        self._beginning = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether a database transaction, with its lock, is open now."""
        return self._state is State.OPEN

    def hold(self, message: Message) -> None:
        """Send this message with the commit."""
        self._check()
        if len(self._held) >= SENDS_MAX:
            raise Misuse(f"more than {SENDS_MAX} messages in one transaction: commit in between")
        self._held.append(message)

    async def session(self) -> Session:
        """The open session; the first one to ask begins it. Raises `Busy` or `Unavailable`."""
        if self.is_open:
            return self._session
        async with self._beginning:  # children of one handler may ask side by side
            if not self.is_open:
                self._check()
                await self._begin()
        return self._session

    async def commit(self, reply: bytes | None, nudge: Callable[[], None]) -> None:
        """Write what is held, commit, and wake the relay.

        Raises `Busy`, `Unavailable`, `CommitUnknown`, or `Duplicate` when a twin was faster.
        """
        self._check()
        if self._state is State.IDLE and self.arrival is None and not self._held:
            self._state = State.ENDED
            return
        session = await self.session()
        self._state = State.ENDED
        try:
            await self._write(session, reply)
        except BaseException as error:
            await self._leave(error)
            raise
        self.is_committing = True
        await self._manager.__aexit__(None, None, None)
        self._reach("inbox.after_commit")
        if self._held:
            self._reach("outbox.after_commit")
            nudge()

    async def roll_back(self, error: BaseException) -> None:
        """Undo everything, the inbox row included, because of `error`."""
        was_open = self._state is State.OPEN
        if self._state is not State.DUPLICATE:
            self._state = State.ENDED
        if was_open:
            await self._leave(error)

    async def _begin(self) -> None:
        manager = self._database.begin(wait=self._wait)
        session = await manager.__aenter__()
        self._manager = manager
        try:
            if self.arrival is not None:
                self.seen = await self._inbox.enter(session, self.arrival)
                self._reach("inbox.after_insert")
        except BaseException as error:
            await self._leave(error)
            raise
        if self.seen is not None:
            self._state = State.DUPLICATE
            await self._leave(Duplicate())
            raise Duplicate
        self._session = session
        self._state = State.OPEN

    async def _write(self, session: Session, reply: bytes | None) -> None:
        self._reach("outbox.after_business_write")
        if self._held:
            await in_one_go(session, self._add)
        if reply is not None and self.arrival is not None:
            await self._inbox.keep_reply(session, self.arrival, reply)
        self._reach("inbox.before_commit")
        self._reach("outbox.before_commit")

    async def _add(self, session: Session) -> None:
        await self._outbox.add(session, self._held)

    async def _leave(self, error: BaseException) -> None:
        await self._manager.__aexit__(type(error), error, error.__traceback__)

    def _check(self) -> None:
        if self._state is State.DUPLICATE:
            raise Duplicate
        if self._state is State.ENDED:
            raise Misuse("the transaction has ended; use it inside its block or handler only")
