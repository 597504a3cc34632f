"""One relay's hold on the outbox of its bus: what it is handed, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

from msgspec import Struct

from callcast.core.errors import Busy, CallcastError, Misuse
from callcast.core.outcome import Dead, Done, Later, Outcome, Release
from callcast.ports.broker import Delivery, Unsettled
from callcast.ports.observer import OutboxAged
from callcast.ports.session import Session, in_one_go
from callcast.ports.tasks import Tasks
from callcast.runtime.lane_lease import LaneLease
from callcast.runtime.owner import is_dead, this_process
from callcast.runtime.ports import Ports
from callcast.runtime.transaction import Units
from callcast.stores.outbox import Pending

Verdict = tuple[Delivery, Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxSettings:
    """How an outbox is relayed. Durations are seconds."""

    lease: float = 5.0
    """When a relay stalls, another takes over after so long; when its process died, at once."""
    margin: float = 1.0
    """Before the end of its lease a relay stops handing out: clocks drift, threads wait."""
    poll: float = 0.02
    poll_max: float = 1.0
    """Between two looks at the table: the first while busy, slowly up to the second when idle."""
    gap: float = 0.005
    """So long at most a look waits for what is on its way: what is committed meanwhile leaves
    together."""
    retention: float = 72 * 3_600.0
    """How long published rows are kept, to be sent again after a broker lost what it confirmed."""
    tidy: float = 15.0
    """Between two looks for old rows and for rows that wait for too long."""
    tidy_batch: int = 500
    aged: float = 60.0
    """From which age on unsent rows raise the alarm."""


_COUNT = count()
"""Tells the consumers of one process apart."""


class Handed(Struct, frozen=True):
    """The handle of a delivery: its row, and the epoch under which it was handed out."""

    id: int
    epoch: int


class OutboxConsumer:
    """One relay's hold on the lane of its bus.

    Its own transactions need not be durable: what of them is lost with the machine goes out once
    more under the same id.
    """

    def __init__(
        self,
        units: Units,
        *,
        ports: Ports,
        tasks: Tasks,
        settings: OutboxSettings,
        prefetch: int,
    ) -> None:
        self._units = units
        self._outbox = units.outbox
        self._owner = f"{this_process()}|{next(_COUNT)}"
        self._ports = ports
        self._clock = ports.clock
        self._reach = ports.failpoints
        self._tasks = tasks
        self._settings = settings
        self._prefetch = prefetch
        self._loop = asyncio.get_running_loop()
        self._lease = LaneLease(settings.lease, settings.margin)
        self._out: set[int] = set()
        """Rows handed out and not settled; changed on the loop only."""
        self._settled: set[int] = set()
        """Rows settled since the last look began: its snapshot may still show them as unsent."""
        self._looked = -settings.gap
        self._pause = settings.poll
        self._away_until = 0.0
        self._tidy_at = 0.0
        self._nudged = asyncio.Event()
        self._quiet = asyncio.Event()
        """Set when nothing is out any more, and by the end."""
        self._is_renewing = False
        self.is_closed: bool = False

    @property
    def count(self) -> int:
        """Rows handed out and not settled."""
        return len(self._out)

    def nudge(self) -> None:
        """Look now."""
        self._nudged.set()

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """The next rows; see `Consumer.fetch`. Nothing is counted: a relay's crash is no fault."""
        deadline = self._clock.now() + wait
        while True:
            await self._linger(deadline)
            if self.is_closed:
                return ()
            self._nudged.clear()
            await self._tidy()
            found = await self._look(min(limit, self._prefetch))
            if found and not self.is_closed:
                self._pause = self._settings.poll
                return self._hand_out(found)
            left = deadline - self._clock.now()
            if left <= 0:
                return ()
            await self._rest(left)

    async def settle(self, verdicts: Sequence[Verdict]) -> None:
        """Carry the verdicts out under the fence; see `Consumer.settle`."""
        for delivery, outcome in verdicts:
            if isinstance(outcome, Release):
                self._out.discard(_handed(delivery).id)
                self._hush()
                self._away_until = max(self._away_until, self._clock.now() + outcome.after)
        written = [verdict for verdict in verdicts if not isinstance(verdict[1], Release)]
        lost = [each for each, _ in written if _handed(each).epoch != self._lease.epoch]
        mine = [verdict for verdict in written if _handed(verdict[0]).epoch == self._lease.epoch]
        if mine and not await self._write(mine):
            lost = [delivery for delivery, _ in written]
            self._lease.lost()
        if any(isinstance(outcome, Dead) for _, outcome in mine):
            self._tidy_at = 0.0  # a parked row is an alarm of its own, and at once
        self._forget(_handed(delivery).id for delivery, _ in written)
        self._nudged.set()
        if lost:
            raise Unsettled(lost=lost, why="the lane has another owner")

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Renew the lane when it is due; see `Consumer.renew`."""
        if deliveries and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._renew_soon)

    async def close(self) -> None:
        """Give the lane back, so that another relay takes it at once. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self._nudged.set()
        self._quiet.set()
        epoch = self._lease.epoch
        if epoch is not None:
            async with self._units.database.begin(is_durable=False) as session:
                await self._outbox.renew(session, epoch, -self._settings.lease)

    def _hand_out(self, found: Sequence[Delivery]) -> Sequence[Delivery]:
        self._out.update(_handed(delivery).id for delivery in found)
        self._quiet.clear()
        return found

    def _forget(self, ids: Iterable[int]) -> None:
        for each in ids:
            self._out.discard(each)
            self._settled.add(each)
        self._hush()

    def _hush(self) -> None:
        if not self._out:
            self._quiet.set()

    async def _look(self, limit: int) -> Sequence[Delivery]:
        """What may be handed out now: read while the lane is ours, from before to after."""
        if self._clock.now() < self._away_until:
            return ()
        for _ in range(2):
            epoch = self._lease.epoch if self._lease.is_mine(self._clock.now()) else None
            found = await self._read(limit, epoch or 0)
            if not found or (epoch is not None and self._holds(epoch)):
                self._reach("outbox.after_read")
                return found
            if not await self._hold_lane():
                return ()
        return ()

    async def _read(self, limit: int, epoch: int) -> Sequence[Delivery]:
        self._settled.clear()
        self._looked = self._clock.now()
        entries = await self._outbox.due(
            self._units.database, limit, retried=max(1, limit // 4), hidden=frozenset(self._out)
        )
        return [
            Delivery(entry.message, entry.attempts, handle=Handed(entry.id, epoch))
            for entry in entries
            if entry.id not in self._settled
        ]

    def _holds(self, epoch: int) -> bool:
        return self._lease.epoch == epoch and self._lease.is_mine(self._clock.now())

    async def _hold_lane(self) -> bool:
        """Take the lane, or what is left of it again; False while another relay has it."""
        if self._lease.epoch is not None:
            return await self._renew()
        outbox, database = self._outbox, self._units.database
        lane = await outbox.lane(database)
        # Its own name stands there when a cancellation came between taking and knowing it.
        former = lane.owner if lane.owner == self._owner or is_dead(lane.owner) else ""
        if lane.left > 0 and not former:
            return False
        since = self._clock.now()
        try:
            async with database.begin(is_durable=False) as session:
                epoch = await outbox.take(
                    session, self._owner, lease=self._settings.lease, former=former
                )
        except Busy:
            return False
        if epoch is None:
            return False
        self._lease.took(epoch, since)
        self._reach("outbox.lane_taken")
        return True

    def _renew_soon(self) -> None:
        if not self._is_renewing and not self.is_closed and self._lease.is_due(self._clock.now()):
            self._is_renewing = True
            self._tasks.start(self._renew(), name="callcast outbox lane")

    async def _renew(self) -> bool:
        epoch, since = self._lease.epoch, self._clock.now()
        self._is_renewing = True
        try:
            if epoch is None:
                return False
            async with self._units.database.begin(is_durable=False) as session:
                is_mine = await self._outbox.renew(session, epoch, self._settings.lease)
        except CallcastError:
            # It ends by itself, or the next look tries again.
            return False
        finally:
            self._is_renewing = False
        if is_mine:
            self._lease.renewed(since)
        elif self._lease.epoch == epoch:
            self._lease.lost()
        return is_mine

    async def _write(self, verdicts: Sequence[Verdict]) -> bool:
        """One transaction for all; False when the lane is another's by now."""
        epoch = self._lease.epoch or 0
        try:
            async with self._units.database.begin(is_durable=False) as session:
                self._reach("outbox.before_mark")
                steps = partial(self._carry_out, epoch=epoch, verdicts=verdicts)
                if not await in_one_go(session, steps):
                    return False
        except CallcastError as error:
            failed = [delivery for delivery, _ in verdicts]
            raise Unsettled(failed=failed, why=str(error)) from error
        self._reach("outbox.after_mark")
        return True

    async def _carry_out(self, session: Session, epoch: int, verdicts: Sequence[Verdict]) -> bool:
        if not await self._outbox.is_mine(session, epoch):
            return False
        done = [_handed(each).id for each, outcome in verdicts if isinstance(outcome, Done)]
        if done:
            await self._outbox.mark(session, epoch, done)
        for delivery, outcome in verdicts:
            row = _handed(delivery).id
            if isinstance(outcome, Later):
                await self._outbox.put_off(session, row, delay=outcome.delay, error=outcome.reason)
            elif isinstance(outcome, Dead):
                await self._outbox.park(session, row, outcome.reason)
        return True

    async def _linger(self, deadline: float) -> None:
        """Let commits gather while what was handed out is on its way, though not for long."""
        until = min(deadline, self._looked + self._settings.gap)
        if not self._out or until <= self._clock.now():
            return
        try:
            with self._clock.expire_at(until, coarse=False):
                await self._quiet.wait()
        except TimeoutError:
            return

    async def _rest(self, left: float) -> None:
        """Until a nudge, the next look, or the end of the fetch."""
        now = self._clock.now()
        until = now + min(left, max(self._pause, self._away_until - now))
        self._pause = min(2 * self._pause, self._settings.poll_max)
        try:
            with self._clock.expire_at(until, coarse=False):
                await self._nudged.wait()
        except TimeoutError:
            return
        self._pause = self._settings.poll

    async def _tidy(self) -> None:
        """Now and then: delete old published rows, and raise the alarm for what waits too long."""
        now = self._clock.now()
        if now < self._tidy_at:
            return
        settings = self._settings
        self._tidy_at = now + settings.tidy
        try:
            for pending in await self._outbox.pending(self._units.database):
                self._tell_age(pending)
            async with self._units.database.begin(is_durable=False) as session:
                cleaned = await self._outbox.clean(session, settings.retention, settings.tidy_batch)
                self._reach("outbox.in_cleanup")
        except Busy:
            return
        if cleaned == settings.tidy_batch:
            self._tidy_at = now

    def _tell_age(self, pending: Pending) -> None:
        if pending.parked or pending.oldest >= self._settings.aged:
            count = pending.ready + pending.delayed + pending.parked
            self._ports.observer.tell(
                OutboxAged(service=pending.bus, pending=count, age=pending.oldest)
            )


def _handed(delivery: Delivery) -> Handed:
    if not isinstance(delivery.handle, Handed):
        raise Misuse("this delivery came from elsewhere")
    return delivery.handle
