"""The broker without a file: for tests, for one process, and as the reference of the semantics."""

from callcast.brokers.memory.broker import MemoryBroker

__all__ = ["MemoryBroker"]
