"""A database session as the stores see it: statements on the caller's own connection."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

R = TypeVar("R")

Value: TypeAlias = str | bytes | int | float | None
Row: TypeAlias = tuple[Value, ...]


class Session(Protocol):
    """One open transaction."""

    async def execute(self, sql: str, *args: object) -> int:
        """Run a statement; the number of rows it changed. Raises `Busy` or `Unavailable`."""
        ...

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        """Run a query; all its rows."""
        ...

    def connection(self) -> object:
        """The driver's own connection or session."""
        ...


@runtime_checkable
class Gathers(Protocol):
    """A session that can run several statements in one go."""

    async def gather(self, steps: Callable[[Session], Coroutine[object, None, R]]) -> R:
        """Run steps that await nothing but the session they are given; their result."""
        ...


async def in_one_go(session: Session, steps: Callable[[Session], Coroutine[object, None, R]]) -> R:
    """Run steps that await nothing but their session, without a hop for each where that spares."""
    if isinstance(session, Gathers):
        return await session.gather(steps)
    return await steps(session)


@runtime_checkable
class Database(Protocol):
    """Opens transactions."""

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql``: which SQL text the stores use."""
        ...

    def begin(
        self, *, wait: float = 5.0, is_durable: bool = True
    ) -> AbstractAsyncContextManager[Session]:
        """A write transaction: commits on a clean exit, rolls back on any error.

        `is_durable=False` is for what may be lost with the machine, though not with the process:
        marks whose loss only repeats what an inbox removes. It spares the wait for the disk.

        Raises `Busy` when no lock came within `wait` seconds, `Unavailable` when the database is
        away, `CommitUnknown` when the reply to COMMIT was lost.
        """
        ...

    async def read(self, sql: str, *args: object) -> Sequence[Row]:
        """Run a query outside any write transaction; never waits for a writer."""
        ...

    async def close(self) -> None:
        """Close all connections; an open transaction is rolled back. Idempotent."""
        ...
