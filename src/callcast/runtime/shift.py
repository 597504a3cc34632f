"""A shift: one consumer, from its first fetch to its close; what a worker does between both.

    fetch  ->  lanes  ->  slots  ->  settling
      ^                     |
      +---------------------+   a slot is free at its verdict

Everything here runs on one loop. The fetch loop asks for no more than there are free slots (see
`Pace` for quick handlers, which get more at once); a delivery occupies its slot from the moment it
is fetched until its verdict, wherever it waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from callcast.core.outcome import Dead, Done, Outcome, Release
from callcast.ports.broker import Consumer, Delivery
from callcast.ports.tasks import Child, Tasks
from callcast.runtime.backoff import Backoff
from callcast.runtime.bell import Bell
from callcast.runtime.lanes import Lanes, Place
from callcast.runtime.leases import Hold
from callcast.runtime.ledger import Ledger
from callcast.runtime.pace import Pace
from callcast.runtime.ports import Ports
from callcast.runtime.settling import Settling
from callcast.runtime.slots import Desk, Slots
from callcast.runtime.subscription import Subscription, WorkerSettings
from callcast.runtime.switch import Switch
from callcast.runtime.verdicts import set_apart
from callcast.runtime.watchdog import Watchdog

UNSETTLED_FACTOR = 2
"""At most so many verdicts for each delivery that there is room for wait to be settled."""
TROUBLES_MAX = 3
"""Failures of the broker in a row that open the kill switch: one is a blip, no outage."""
EMPTY_PAUSE = 0.1
"""Seconds before the next fetch after one that brought nothing and did not even wait."""
GRACE = 1.0 / 3.0
"""Share of a lease that a delivery is still renewed after its timeout, to end and be settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What outlives a shift: the worker's own."""

    ports: Ports
    tasks: Tasks
    settings: WorkerSettings
    switch: Switch
    watchdog: Watchdog
    fatal: Callable[[BaseException], None]
    """A handler ended with what should end the process."""


class Shift:
    """Runs what one consumer hands over."""

    def __init__(self, consumer: Consumer, subscription: Subscription, upkeep: Upkeep) -> None:
        ports = upkeep.ports
        self._consumer = consumer
        self._subscription = subscription
        self._upkeep = upkeep
        self._clock = ports.clock
        self._observer = ports.observer
        self._switch = upkeep.switch
        self._backoff = Backoff(ports.dice)
        self._ledger = Ledger(subscription, ports)
        self._recorded = self._ledger.handling
        self._lanes = Lanes() if subscription.source.ordered else None
        self._settling = Settling(
            consumer, ports=ports, settled=self._settled, failed=self._trouble
        )
        self._ready: deque[Delivery] = deque()  # filled here, emptied by the slots
        desk = Desk(ready=self._ready, started=self._started, ended=self._ended, fatal=upkeep.fatal)
        self._slots = Slots(subscription, desk, ports=ports, tasks=upkeep.tasks)
        self._patience = subscription.timeout + subscription.lease * GRACE
        self._pace = Pace(subscription.slots, ports.clock.now())
        self._owned = 0  # fetched, no verdict yet
        self._suspect: Delivery | None = None  # the one that is held or runs
        self._alone: Delivery | None = None  # the same while its turn waits for quiet
        self._is_cautious = False
        self._is_fetching = False
        self._is_stopping = False
        self._bell = Bell()  # rung at each verdict and settle
        self._children: list[Child] = []
        self.hold: Hold = Hold(consumer, subscription.lease, ports.clock.now())
        self.trouble: Exception | None = None
        """Why the broker does not do what it is asked; None once it does."""

    @property
    def owned(self) -> int:
        """How many deliveries wait or run here without a verdict."""
        return self._owned

    @property
    def unsettled(self) -> int:
        """How many verdicts are not settled yet."""
        return self._settling.count

    @property
    def is_quiet(self) -> bool:
        """Nothing waits, runs, or is unsettled."""
        return self._owned == 0 and self._settling.count == 0

    def start(self) -> None:
        """Begin to fetch and to settle."""
        tasks, source = self._upkeep.tasks, self._subscription.source
        self._children = [
            tasks.start(self._fetch_on(), name=f"fetch of {source}"),
            tasks.start(self._settling.run(), name=f"settle of {source}"),
        ]

    def stop(self) -> None:
        """Fetch no more and give back what has not begun. Idempotent."""
        if not self._is_stopping:
            self._is_stopping = True
            self._withdraw("stopped")
        if self._children:
            self._children[0].cancel()

    async def close(self, until: float) -> None:
        """Finish what runs, by `until` (monotonic); settle it; give back the rest, uncounted."""
        self.stop()
        await self._wait(lambda: self._owned > 0, until)
        limit = max(until, self._clock.now()) + self._upkeep.settings.close_wait
        await self._within(limit, self._slots.close)
        await self._wait(lambda: self._settling.count > 0, limit)
        await self.abandon()

    async def abandon(self) -> None:
        """End without ceremony: what is unsettled is lost to whoever gets it next."""
        self._is_stopping = True
        limit = self._clock.now() + self._upkeep.settings.close_wait
        for child in self._children:
            child.cancel()
        for child in self._children:
            await self._within(limit, child.wait)
        await self._within(limit, self._slots.close)
        # A consumer that cannot even close holds leases that nobody renews: they end by themselves.
        await self._within(limit, self._consumer.close)

    # Fetching

    async def _fetch_on(self) -> None:
        while True:
            limit = self._limit()
            if limit > 0:
                await self._fetch(limit)
            elif self._switch.is_open and self.is_quiet:
                await self._clock.sleep(self._switch.retry_in(self._clock.now()))
            else:
                await self._bell.wait()

    def _limit(self) -> int:
        """How many to fetch now."""
        if self._suspect is not None:
            self._try_suspect()
            return 0
        pace, unsettled = self._pace, self._settling.count
        pace.look(self._owned, self._clock.now())
        if unsettled >= pace.room * UNSETTLED_FACTOR:
            return 0
        if self._is_cautious:
            return 1 if self.is_quiet and not self._switch.is_open else 0
        if self._switch.is_closed:
            return pace.free(self._owned)
        return self._switch.admits(self._clock.now(), is_quiet=self.is_quiet)

    async def _fetch(self, limit: int) -> None:
        wait = self._upkeep.settings.fetch_wait
        began = self._clock.now()
        self._is_fetching = True
        try:
            batch = await self._consumer.fetch(limit, wait)
        except Exception as error:  # noqa: BLE001 - whatever it was, the answer is to ask again
            self._is_fetching = False
            pause = self._backoff.next()
            self._trouble(error)
            await self._clock.sleep(pause)
            return
        finally:
            self._is_fetching = False
        self._backoff.reset()
        self._calm()
        self._pace.fetched(len(batch), limit, self._clock.now())
        self._receive(batch)
        if not batch and self._clock.now() < began + wait / 2:
            # A consumer that was closed under our feet no longer waits: it must not spin the loop.
            await self._clock.sleep(EMPTY_PAUSE)

    def _receive(self, batch: Sequence[Delivery]) -> None:
        if batch:
            self._upkeep.watchdog.progress(self._clock.now())
            self._owned += len(batch)
            self.hold.add(batch)
            if self._is_stopping or self._switch.is_open:
                self._give_back_all(batch, "not now")
            else:
                self._admit(batch)
        if self._lanes is not None:
            self._lanes.fetched()

    def _admit(self, batch: Sequence[Delivery]) -> None:
        suspect, keep, back = set_apart(batch, is_ordered=self._lanes is not None)
        self._suspect = suspect
        self._is_cautious = suspect is not None
        self._give_back_all(back, "makes room for one that may have killed its worker")
        for delivery in keep:
            self._arrive(delivery)
        self._slots.wake(1)

    def _arrive(self, delivery: Delivery) -> None:
        if self._lanes is None or delivery.message.key is None:
            self._dispatch(delivery)
            return
        place = self._lanes.arrive(delivery)
        if place is Place.RUN:
            self._dispatch(delivery)
        elif place is Place.BACK:
            self._put(delivery, Release(reason="handed out too early"))

    def _dispatch(self, delivery: Delivery) -> None:
        if delivery is self._suspect:
            self._alone = delivery
        else:
            self._ready.append(delivery)

    def _try_suspect(self) -> None:
        """Run the suspect once nothing else is in flight or unsettled."""
        if self._alone is not None and self._owned == 1 and self._settling.count == 0:
            self._ready.append(self._alone)
            self._alone = None
            self._slots.wake(1)

    # Verdicts

    def _started(self, delivery: Delivery, now: float) -> None:
        self.hold.until[delivery] = now + self._patience

    def _ended(self, delivery: Delivery, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Done):
            self._switch.done(now)
            is_told = self._observer.hears_success
        else:
            if self._subscription.park and isinstance(outcome, Dead):
                outcome = replace(outcome, park=True)
            outcome = self._switch.judge(outcome, now)
            is_told = True
        if is_told or self._recorded is not None:
            ends = self.hold.until.get(delivery, now + self._patience)
            ran = now - (ends - self._patience)
            if self._recorded is not None:
                tries = delivery.round + delivery.crashes
                self._recorded(delivery.message, outcome, ran, tries=tries)
            if is_told:
                self._ledger.enter(delivery, outcome, ran=ran)
        self._conclude(delivery, outcome)
        if self._switch.is_open:
            self._withdraw("the kill switch is open")
        if self._bell.waiting is not None:
            self._bell.ring()

    def _conclude(self, delivery: Delivery, outcome: Outcome) -> None:
        """Put a verdict to be settled, and let its key go on or back."""
        lanes = self._lanes
        if lanes is None or delivery.message.key is None:
            self._put(delivery, outcome)
        elif isinstance(outcome, Done) or (isinstance(outcome, Dead) and not outcome.park):
            self._put(delivery, outcome)
            following = lanes.go_on(delivery)
            if following is not None:
                self._dispatch(following)
        else:
            # Those behind go first: the key is held by its head until that is given back, too.
            for behind in lanes.give_back(delivery):
                self._put(behind, Release(reason="its key waits"))
            self._put(delivery, outcome)

    def _put(self, delivery: Delivery, outcome: Outcome) -> None:
        self._owned -= 1
        if delivery is self._suspect:
            self._suspect = self._alone = None
        self._settling.add(delivery, outcome)

    def _withdraw(self, reason: str) -> None:
        """Give back what has not begun to run."""
        waiting = [*self._ready] if self._alone is None else [*self._ready, self._alone]
        self._ready.clear()
        for delivery in waiting:
            self._conclude(delivery, Release(reason=reason))
        if self._lanes is not None:
            self._give_back_all(self._lanes.withdraw(), reason)

    def _give_back_all(self, deliveries: Sequence[Delivery], reason: str) -> None:
        for delivery in deliveries:
            self._put(delivery, Release(reason=reason))

    def _settled(self, done: Sequence[Delivery], lost: Sequence[Delivery]) -> None:
        self._calm()
        self._upkeep.watchdog.progress(self._clock.now())
        for delivery in done:
            self.hold.until.pop(delivery, None)
        if lost:
            self._ledger.lost(lost)
        if self._lanes is not None and self._lanes.is_any_shut:
            for delivery in done:
                if delivery.message.key is not None:
                    self._reopen(self._lanes, delivery)
        self._bell.ring()

    def _reopen(self, lanes: Lanes, delivery: Delivery) -> None:
        onward = lanes.settled(delivery, is_fetching=self._is_fetching)
        if onward is None:
            return
        self._give_back_all(onward.back, "handed out too early")
        if onward.run is None:
            return
        if self._is_stopping or self._switch.is_open:
            self._conclude(onward.run, Release(reason="not now"))
        else:
            self._dispatch(onward.run)
            self._slots.wake(1)

    # Trouble, and waiting

    def _trouble(self, error: Exception) -> None:
        self.trouble = error
        if max(self._backoff.failures, self._settling.failures) >= TROUBLES_MAX:
            self._switch.unavailable(f"the broker is away: {error}", self._clock.now())
            self._withdraw("the broker is away")

    def _calm(self) -> None:
        if self._backoff.failures == self._settling.failures == 0:
            self.trouble = None

    async def _wait(self, is_so: Callable[[], bool], until: float) -> None:
        async def over() -> None:
            while is_so():
                await self._bell.wait()

        await self._within(until, over)

    async def _within(self, until: float, act: Callable[[], Awaitable[None]]) -> None:
        """Do it, or give it up at `until`."""
        try:
            with self._clock.expire_at(until, coarse=False):
                await act()
        except TimeoutError:
            return
