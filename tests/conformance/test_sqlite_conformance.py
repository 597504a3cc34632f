"""The embedded broker passes the suite that every broker passes, on the real clock."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    closing,
    contextmanager,
)
from pathlib import Path

from callcast.brokers.sqlite import SqliteBroker
from callcast.ports.broker import Broker
from callcast.runtime.clock import AsyncioClock
from callcast.testing.broker_suite import BrokerSuite


def open_at(path: str) -> Broker:
    return SqliteBroker(path, clock=AsyncioClock())


class TestSqlite(BrokerSuite):
    lease = 1.0
    delay = 0.4
    opener = f"{__name__}:open_at"
    folder: Path

    @asynccontextmanager
    async def storage(self) -> AsyncGenerator[None]:
        self.folder = Path(tempfile.mkdtemp(prefix="callcast-suite-"))
        try:
            yield
        finally:
            shutil.rmtree(self.folder)

    async def open(self) -> Broker:
        return open_at(self.url())

    async def open_keeping(self) -> Broker:
        return SqliteBroker(self.url(), clock=AsyncioClock(), retain=3600.0)

    def url(self) -> str:
        return str(self.folder / "broker.db")

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Another process's transaction, which does not end in time."""
        assert isinstance(self.broker, SqliteBroker)
        engine = self.broker._engine()
        engine.writer._lock_wait = 0.1  # below the lease
        with closing(sqlite3.connect(self.url(), isolation_level=None)) as other:
            other.execute("begin immediate")
            yield

    def refuse_settles(self) -> AbstractContextManager[object]:
        return self._locked()

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
