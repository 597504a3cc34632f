"""Reading the services' ledgers and outboxes from outside."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType

LEDGERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "orders": ("orders", "select id from orders"),
        "holds": ("inventory", "select id from holds"),
        "released": ("inventory", "select id from released"),
        "charges": ("payments", "select id from charges"),
        "voided": ("payments", "select id from voided"),
        "parcels": ("fulfilment", "select order_id from parcels"),
        "mails": ("notifications", "select order_id from mails"),
    }
)
"""Which service keeps it, and its rows."""

UNSENT = "select count(*) from callcast_outbox where state = 0"


class Ledgers:
    """Read-only views on databases that other processes write."""

    def __init__(self, database: Callable[[str], Path]) -> None:
        self._database = database

    def rows(self, ledger: str) -> Sequence[str]:
        """The first column of all rows of a ledger."""
        service, query = LEDGERS[ledger]
        return [str(row[0]) for row in self._read(service, query)]

    def count(self, ledger: str) -> int:
        """How many rows a ledger has now."""
        return len(self.rows(ledger))

    def unsent(self, services: Sequence[str]) -> int:
        """Messages that wait in outboxes."""
        return sum(self._number(service, UNSENT) for service in services)

    @contextmanager
    def locked(self, service: str) -> Generator[None, None, None]:
        """Hold the write lock of a service's database: its handlers wait, work in their hands."""
        with closing(sqlite3.connect(self._database(service), isolation_level=None)) as connection:
            connection.execute("begin immediate")
            try:
                yield
            finally:
                connection.execute("rollback")

    def _number(self, service: str, query: str) -> int:
        rows = self._read(service, query)
        return int(str(rows[0][0])) if rows else 0

    def _read(self, service: str, query: str) -> Sequence[tuple[object, ...]]:
        path = self._database(service)
        if not path.exists():
            return ()
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()
