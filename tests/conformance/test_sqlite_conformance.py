"""The embedded broker passes the suite that every broker passes, on the real clock."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from callcast.brokers.sqlite import SqliteBroker
from callcast.ports.broker import Broker
from callcast.runtime.clock import AsyncioClock
from callcast.testing.broker_suite import BrokerSuite


class TestSqlite(BrokerSuite):
    lease = 1.0
    delay = 0.4
    folder: Path

    @asynccontextmanager
    async def storage(self) -> AsyncGenerator[None]:
        self.folder = Path(tempfile.mkdtemp(prefix="callcast-suite-"))
        try:
            yield
        finally:
            shutil.rmtree(self.folder)

    async def open(self) -> Broker:
        return SqliteBroker(self.folder / "broker.db", clock=AsyncioClock())

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
