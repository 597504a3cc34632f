"""One worker's hold on a group: it takes from the desk on its own loop, without a hop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from callcast.brokers.rabbitmq.desk import Hand, Lease
from callcast.brokers.rabbitmq.house import House
from callcast.brokers.rabbitmq.intake import Intake
from callcast.brokers.rabbitmq.thread import Stopped
from callcast.core.errors import CallcastError, Misuse
from callcast.core.outcome import Outcome, Release
from callcast.policies.shelves import SUSPECT_CRASHES
from callcast.ports.broker import Delivery, Unsettled


class RabbitConsumer:
    """A consumer of one part of a source. Made by `RabbitBroker.consume`."""

    def __init__(
        self,
        house: House,
        intake: Intake,
        hand: Hand,
        *,
        on_close: Callable[[RabbitConsumer], Awaitable[None]],
    ) -> None:
        self._house = house
        self._clock = house.clock
        self._intake = intake
        self._hand = hand
        self._on_close = on_close
        self._pid = os.getpid()
        self._bell = Bell()
        self.is_closed: bool = False

    @property
    def house(self) -> House:
        """What it runs in."""
        return self._house

    @property
    def intake(self) -> Intake:
        """Where its messages come in."""
        return self._intake

    @property
    def hand(self) -> Hand:
        """What it holds."""
        return self._hand

    def wake(self) -> None:
        """Something has changed; from any thread."""
        self._bell.ring()

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Hand over up to `limit` deliveries; waits for the first only.

        No `await` stands between taking and returning: a cancelled fetch has taken nothing. (Where
        it must, before a suspect of an ordered group, what was taken is put back.)
        Raises `Unavailable` when the broker is away.
        """
        self._check_process()
        intake, desk, clock = self._intake, self._intake.desk, self._clock
        end = clock.now() + wait
        with intake.lock:
            intake.fetching += 1
        try:
            while not self.is_closed:
                self._bell.arm()
                now = clock.now()
                with intake.lock:
                    taken = desk.take(self._hand, limit, now)
                    due = desk.next_due
                if taken:
                    return await self._alone(taken) if intake.is_ordered else taken
                if intake.trouble is not None:
                    raise intake.trouble
                if now >= end:
                    break
                if intake.is_suspended:
                    self._house.thread.call(intake.resume)
                try:
                    with clock.expire_at(min(end, max(now, due)), coarse=False):
                        await self._bell.wait()
                except TimeoutError:
                    continue
        finally:
            with intake.lock:
                intake.fetching -= 1
                intake.last_fetch = clock.now()
        return ()

    async def _alone(self, taken: Sequence[Delivery]) -> Sequence[Delivery]:
        """The same; before a suspect its neighbours are pardoned, which must not pay for it."""
        suspect = taken[0]
        if suspect.crashes < SUSPECT_CRASHES:
            return taken
        lease = suspect.handle
        assert isinstance(lease, Lease)  # noqa: S101 - the desk's own
        try:
            await self._house.thread.run(lambda: self._intake.set_apart(lease.entry))
        except Stopped:
            return ()
        except BaseException:
            self._put_back(suspect)
            raise
        return taken

    def _put_back(self, delivery: Delivery) -> None:
        with self._intake.lock:
            self._intake.desk.settle(self._hand, [(delivery, Release())], self._clock.now())

    async def settle(self, verdicts: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Carry out all verdicts; raises `Unsettled`, the rest being settled.

        What is done is on its way to the broker when this returns: a crash of the broker at that
        moment may bring it again. What is put off or dead is durable.
        """
        self._check_process()
        if not verdicts:
            return
        intake = self._intake
        with intake.lock:
            result = intake.desk.settle(self._hand, verdicts, self._clock.now())
        if result.done:
            self._house.thread.call(lambda: intake.finish(result.done))
        if result.frees:
            intake.wake()
        failed: Sequence[Delivery] = ()
        why = ""
        if result.moves:
            try:
                failed = await self._house.thread.run(lambda: intake.move(self._hand, result.moves))
                why = "the broker did not confirm the copy" if failed else ""
            except Stopped:
                result.lost += [delivery for delivery, _, _ in result.moves]
            except CallcastError as error:
                failed, why = [delivery for delivery, _, _ in result.moves], str(error)
        if result.lost or failed:
            raise Unsettled(result.lost, failed, why)

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Extend these leases by a full one from now; what is lost stays lost."""
        until = self._clock.now() + self._hand.lease
        for delivery in deliveries:
            if isinstance(delivery.handle, Lease):
                delivery.handle.until = until

    async def close(self) -> None:
        """Give back what is still held, uncounted, and end. Idempotent; wakes a waiting fetch."""
        if self.is_closed:
            return
        self.is_closed = True
        self._bell.ring()
        if self._pid == os.getpid():
            await self._on_close(self)

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise Misuse("this consumer was opened before a fork: open one in each process")


class Bell:
    """Rung from any thread, waited for on the loop of whoever armed it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung: asyncio.Event | None = None
        self._is_ringing = False

    def arm(self) -> None:
        """From now on a ring is heard by the next `wait`."""
        if self._rung is None or self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._rung = asyncio.Event()
        self._is_ringing = False
        self._rung.clear()

    def ring(self) -> None:
        """Wake who waits; cheap when somebody else has just done so."""
        loop, rung = self._loop, self._rung
        if loop is None or rung is None or self._is_ringing:
            return
        self._is_ringing = True
        try:
            loop.call_soon_threadsafe(rung.set)
        except RuntimeError:
            return  # the loop has ended, and nobody waits on it

    async def wait(self) -> None:
        """Return once it has rung since it was armed."""
        assert self._rung is not None  # noqa: S101 - armed before
        await self._rung.wait()
