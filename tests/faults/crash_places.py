"""Places around the embedded broker and the relay, for the programs of the crash tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from callcast.brokers.sqlite import SqliteBroker
from callcast.core.outcome import Dead, Done, Outcome
from callcast.ports.broker import Consumer, Delivery, Source
from callcast.ports.session import Session
from callcast.runtime import outbox_consumer
from callcast.runtime.relay import Relay
from callcast.stores.outbox import Outbox
from callcast.testing.faults import Faults

LEASE = 1.0
"""Seconds; short, so that a stopped process is soon given up."""


class Lossy:
    """A consumer around the broker's own, with places before and after the acknowledgement."""

    def __init__(self, consumer: Consumer, reach: Faults) -> None:
        self._consumer = consumer
        self._reach = reach
        self.fetch = consumer.fetch
        self.renew = consumer.renew
        self.close = consumer.close

    async def settle(self, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
        for _, outcome in verdicts:
            if isinstance(outcome, Dead):
                self._reach("inbox.before_dead")
            if isinstance(outcome, Done):
                self._reach("inbox.before_ack")
        await self._consumer.settle(verdicts)
        for _, outcome in verdicts:
            if isinstance(outcome, Dead):
                self._reach("inbox.after_dead")
            if isinstance(outcome, Done):
                self._reach("inbox.after_ack")


def wire(faults: Faults, confirming: str, gate: Path) -> None:
    """Put places around the embedded broker: before a confirm arrives, and around the ack."""
    publish, consume = SqliteBroker.publish, SqliteBroker.consume

    async def publishing(self: SqliteBroker, messages: Sequence[object]) -> None:
        await publish(self, messages)  # type: ignore[arg-type]
        faults(confirming)

    async def consuming(self: SqliteBroker, source: Source, **options: object) -> Consumer:
        if "CRASH_GATE" in os.environ:
            faults("gate")
            while not gate.exists():
                await asyncio.sleep(0.01)
        consumer = await consume(self, source, **options)  # type: ignore[arg-type]
        return Lossy(consumer, faults)

    SqliteBroker.publish = publishing  # type: ignore[method-assign,assignment]
    SqliteBroker.consume = consuming  # type: ignore[method-assign,assignment]


def hold_relay() -> asyncio.Event:
    """Let no relay look before this is set: places are passed in an order that is known."""
    go = asyncio.Event()
    fetch = outbox_consumer.OutboxConsumer.fetch

    async def fetching(
        self: outbox_consumer.OutboxConsumer, limit: int, wait: float
    ) -> Sequence[Delivery]:
        await go.wait()
        return await fetch(self, limit, wait)

    outbox_consumer.OutboxConsumer.fetch = fetching  # type: ignore[method-assign]
    return go


def never_renew() -> None:
    """Let a relay's lane end in its time.

    A relay that renews has the lock of its database in its hands for as long as the loop takes. It
    could be stopped just then, as happens on a busy machine: nobody would get the lane after it.
    """

    def renew(_self: outbox_consumer.OutboxConsumer, _deliveries: Sequence[Delivery]) -> None: ...

    outbox_consumer.OutboxConsumer.renew = renew  # type: ignore[method-assign]


def watch_marks(folder: Path) -> None:
    """Write down every mark: its epoch, the lane's, and how many rows it changed."""
    mark = Outbox.mark

    async def marking(self: Outbox, session: Session, epoch: int, ids: Sequence[int]) -> int:
        changed = await mark(self, session, epoch, ids)
        (row,) = await session.fetch("select max(epoch) from callcast_outbox_lane")
        write_down(folder, epoch, row[0], changed)
        return changed

    Outbox.mark = marking  # type: ignore[method-assign]


def write_down(folder: Path, epoch: int, latest: object, changed: int) -> None:
    file = os.open(folder / "marks", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.write(file, f"{epoch} {latest} {changed}\n".encode())
    os.close(file)


def hurry() -> None:
    """Short leases and polls; with CRASH_CLEAN everything published is old enough to go."""
    retention = 3600.0 if "CRASH_CLEAN" in os.environ else 72 * 3600.0
    quick = outbox_consumer.OutboxSettings(
        lease=LEASE, margin=0.2, poll=0.01, poll_max=0.1, retention=retention
    )
    worker = Relay.worker

    def relaying(self: Relay, tasks: object, **more: object) -> object:
        return worker(self, tasks, **{**more, "settings": quick})  # type: ignore[arg-type]

    Relay.worker = relaying  # type: ignore[method-assign,assignment]
