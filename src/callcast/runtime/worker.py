"""A worker: fetches from one source, runs its handler, settles, until it is drained."""

from __future__ import annotations

from callcast.core.errors import Misuse
from callcast.ports.broker import Consumer, Feed
from callcast.ports.observer import ConsumerRebuilt, Lagged
from callcast.ports.tasks import Child, Tasks
from callcast.runtime.backoff import Backoff
from callcast.runtime.leases import Leases
from callcast.runtime.ports import Ports
from callcast.runtime.shift import Shift, Upkeep
from callcast.runtime.subscription import Subscription, WorkerSettings
from callcast.runtime.switch import Switch
from callcast.runtime.watchdog import Watchdog

CARE_MAX = 5.0
"""Seconds between two looks at leases and progress, at most; a third of a shorter lease."""

_DEFAULTS = WorkerSettings()


class Worker:
    """One subscription's worker.

    | state    | start   | goes wrong                | goes right | drain    |
    |----------|---------|---------------------------|------------|----------|
    | new      | running | -                         | -          | closed   |
    | running  | Misuse  | paused, failing, stalled  | -          | draining |
    | paused   | Misuse  | paused, failing           | running    | draining |
    | failing  | Misuse  | failing, stalled          | running    | draining |
    | stalled  | Misuse  | stalled                   | running    | draining |
    | draining | Misuse  | -                         | closed     | -        |
    | closed   | Misuse  | -                         | -          | -        |

    Paused: the kill switch is not closed. Failing: the broker does not do what it is asked; it is
    asked again. Stalled: the watchdog has built the consumer anew and nothing has moved since.

    A message killed with its process, or not settled for any other reason, comes again. A handler
    that ends with `SystemExit` or another `BaseException` drains the worker at once; then the error
    goes to the owner of `tasks`. `leases` is shared by the workers of a bus.
    """

    def __init__(
        self,
        feed: Feed,
        subscription: Subscription,
        *,
        ports: Ports,
        tasks: Tasks,
        settings: WorkerSettings = _DEFAULTS,
        leases: Leases | None = None,
    ) -> None:
        self.subscription = subscription
        self._feed = feed
        self._ports = ports
        self._tasks = tasks
        self._settings = settings
        self._leases = leases or Leases(ports.clock)
        self._clock = ports.clock
        source = subscription.source
        now = ports.clock.now()
        self._switch = Switch(source, settings, ports)
        self._watchdog = Watchdog(source, patience=settings.watchdog, now=now)
        self._upkeep = Upkeep(
            ports=ports,
            tasks=tasks,
            settings=settings,
            switch=self._switch,
            watchdog=self._watchdog,
            fatal=self._fatal,
        )
        self._lag_told = now
        self._shift: Shift | None = None  # None before the start, after the end, and between two
        self._care: Child | None = None
        self._draining: Child | None = None
        self._is_started = False
        self._is_closed = False

    @property
    def is_idle(self) -> bool:
        """Nothing is in flight, unsettled or buffered here; more may be ready at the broker."""
        return self._shift is None or self._shift.is_quiet

    @property
    def is_healthy(self) -> bool:
        """Whether it does its work, or could: a paused worker is degraded, not ill."""
        return self.state in {"new", "running", "paused", "draining"}

    @property
    def state(self) -> str:
        """One word of the table."""
        shift = self._shift
        if self._is_closed:
            return "closed"
        if self._draining is not None:
            return "draining"
        if not self._is_started:
            return "new"
        if not self._watchdog.is_well:
            return "stalled"
        if shift is None or shift.trouble is not None:
            return "failing"
        return "running" if self._switch.is_closed else "paused"

    @property
    def trouble(self) -> Exception | None:
        """Why it is failing."""
        return None if self._shift is None else self._shift.trouble

    async def start(self) -> None:
        """Open a consumer and begin; returns once it can fetch.

        Raises `Misuse` the second time, and whatever the broker raises when it cannot be reached.
        """
        if self._is_started or self._draining is not None:
            raise Misuse(f"the worker of {self.subscription.source} was started already")
        self._is_started = True
        self._begin(await self._consume())
        name = f"care of {self.subscription.source}"
        self._care = self._tasks.start(self._look_after(), name=name)

    async def drain(self, until: float) -> None:
        """Fetch no more, finish what runs by `until` (monotonic), settle, close the consumer.

        What has not begun by then, and what must be cancelled then, is given back uncounted.
        Idempotent; a second caller waits for the first one's end.
        """
        if self._draining is None:
            name = f"drain of {self.subscription.source}"
            self._draining = self._tasks.start(self._drain(until), name=name)
        await self._draining.wait()

    async def _drain(self, until: float) -> None:
        try:
            if self._care is not None:
                self._care.cancel()
                await self._care.wait()
            if self._shift is not None:
                await self._shift.close(until)
        finally:
            self._end_shift()
            self._is_closed = True

    def _fatal(self, error: BaseException) -> None:
        """A handler ended with what should end the process: let go of all, then pass it on."""
        if self._shift is not None:
            self._shift.stop()
        name = f"worker of {self.subscription.source}"
        self._tasks.start(self._end_with(error), name=name)

    async def _end_with(self, error: BaseException) -> None:
        await self.drain(self._clock.now())
        raise error

    async def _consume(self) -> Consumer:
        subscription = self.subscription
        return await self._feed.consume(subscription.source, lease=subscription.lease)

    def _begin(self, consumer: Consumer) -> None:
        shift = self._shift = Shift(consumer, self.subscription, self._upkeep)
        self._leases.join(shift.hold)
        self._watchdog.excuse(self._clock.now())
        shift.start()

    def _end_shift(self) -> None:
        if self._shift is not None:
            self._leases.leave(self._shift.hold)
            self._shift = None

    # Care: lag and progress, and leases where there is no thread for them

    async def _look_after(self) -> None:
        interval = min(CARE_MAX, self.subscription.lease / 3.0)
        while True:
            await self._clock.sleep(interval)
            shift = self._shift
            if shift is not None:
                if not self._leases.has_thread:
                    shift.hold.renew(self._clock.now())
                await self._watch(shift)

    async def _watch(self, shift: Shift) -> None:
        now = self._clock.now()
        if shift.owned or shift.trouble is not None or not self._switch.is_closed:
            self._watchdog.excuse(now)  # something runs, or is known to be wrong
        silence = self._watchdog.silence(now)
        if not silence and now < self._lag_told + self._settings.lag_told:
            return
        self._lag_told = now
        is_stuck = await self._look_at_lag()
        if silence and self._watchdog.silence(self._clock.now()) and (is_stuck or shift.unsettled):
            await self._rebuild(shift, silence)

    async def _look_at_lag(self) -> bool:
        """Tell how far the source is behind; whether messages wait that should be here."""
        source = self.subscription.source
        try:
            with self._clock.expire_at(self._clock.now() + self._settings.close_wait):
                lag = await self._feed.lag(source)
        except Exception:  # noqa: BLE001 - a broker that cannot even count: fetch and settle say so
            return False
        lagged = Lagged(str(source), lag.ready, lag.leased, lag.delayed, lag.dead, lag.oldest)
        self._ports.observer.tell(lagged)
        return self._watchdog.is_stuck(lag)

    async def _rebuild(self, shift: Shift, silence: float) -> None:
        self._ports.observer.tell(ConsumerRebuilt(str(self.subscription.source), silence))
        self._watchdog.rebuilt(self._clock.now())
        self._end_shift()
        await shift.abandon()
        backoff = Backoff(self._ports.dice)
        while self._shift is None:
            try:
                consumer = await self._consume()
            except Exception:  # noqa: BLE001 - stalled says it; a broker that is away comes back
                await self._clock.sleep(backoff.next())
            else:
                self._begin(consumer)
