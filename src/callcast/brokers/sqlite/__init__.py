"""The embedded broker: one SQLite file, several processes, no server."""

from callcast.brokers.sqlite.backup import backup
from callcast.brokers.sqlite.broker import SqliteBroker

__all__ = ["SqliteBroker", "backup"]
