"""The relay: an ordinary worker whose handler publishes what waits in the outbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from callcast.core.amqp import TO
from callcast.core.errors import CircuitOpen, Misuse
from callcast.core.message import Message
from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.core.work import Work
from callcast.policies.notes import summary
from callcast.ports.broker import Source
from callcast.ports.tasks import Tasks
from callcast.runtime.leases import Leases
from callcast.runtime.outbox_consumer import OutboxSettings
from callcast.runtime.outbox_feed import OutboxFeed
from callcast.runtime.ports import Ports
from callcast.runtime.subscription import Subscription, WorkerSettings
from callcast.runtime.transaction import SERVICE, Units
from callcast.runtime.worker import Worker

FIRST = 0.1
MOST = 30.0
"""Seconds: a row is tried again after the first, then twice as long each time, up to the last."""

Publish = Callable[[Message], Awaitable[object]]
Ensure = Callable[[Sequence[str], Sequence[Source]], Awaitable[None]]


class Leaving(Struct, frozen=True):
    """What a relay handles, by the little that a worker wants to know of it."""

    name: str = "callcast.outbox"


class Relay:
    """Publishes the outbox of one bus; what fails waits for ever, what can never succeed parks.

    | raised by `publish`   | outcome                                                     |
    |-----------------------|-------------------------------------------------------------|
    | nothing               | `Done`: confirmed, so it is marked                          |
    | `CircuitOpen`         | `Release`: the broker is away, the whole outbox waits       |
    | `Misuse`              | `Dead`: too large, forbidden; the row parks, and its key    |
    | any other `Exception` | `Later`, ever more slowly: not sent, unanswered, unheard of |
    """

    def __init__(
        self,
        units: Units,
        service: str,
        publish: Publish,
        *,
        ports: Ports,
        ensure: Ensure,
        binds: bool = False,
    ) -> None:
        self._units = units
        self._service = service
        self._publish = publish
        self._ensure = ensure
        self._ports = ports
        self._reach = ports.failpoints
        self._binds = binds
        """An exchange that others made is left as it is (`Traits.binds`)."""
        self._known: set[str] = set()
        """Topics that exist; bounded by the contracts of the services on this database."""

    @property
    def source(self) -> Source:
        """By what name the outbox shows in facts and messages."""
        return Source("callcast.outbox", self._service)

    def worker(
        self,
        tasks: Tasks,
        *,
        settings: OutboxSettings | None = None,
        leases: Leases | None = None,
    ) -> Worker:
        """A worker that relays, not started yet; `leases` are the bus's own."""
        settings = settings or OutboxSettings()
        feed = OutboxFeed(self._units, ports=self._ports, tasks=tasks, settings=settings)
        subscription = Subscription(
            source=self.source,
            contract=Leaving(),
            service=self._service,
            handler="callcast.relay",
            run=self.run,
            lease=settings.lease,
        )
        return Worker(
            feed,
            subscription,
            ports=self._ports,
            tasks=tasks,
            settings=_PATIENT,
            leases=leases,
        )

    async def run(self, work: Work) -> Outcome:
        """Publish one row."""
        message = work.message
        if message is None:
            return Dead("no message")
        try:
            await self._make_sure(message)
            self._reach("outbox.before_publish")
            await self._publish(message)
        except Misuse as error:
            self._reach("outbox.refused")
            return Dead(summary(error))
        except CircuitOpen as error:
            return Release(min(MOST, max(FIRST, error.retry_after)), summary(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the row is still ours to send
            self._reach("outbox.refused")
            delay = min(MOST, FIRST * 2.0 ** min(work.round, 16))
            return Later(delay * (0.5 + 0.5 * self._ports.dice()), summary(error))
        self._reach("outbox.after_publish")
        return DONE

    async def _make_sure(self, message: Message) -> None:
        """A topic is made on first use; so is the queue of a cast whose service never ran."""
        if message.topic in self._known or (self._binds and TO in message.headers):
            return
        service = message.headers.get(SERVICE)
        sources = () if service is None else (Source(message.topic, service),)
        await self._ensure([message.topic], sources)
        self._known.add(message.topic)


_PATIENT = WorkerSettings(kill_switch_minimum=1_000_000_000, watchdog=120.0)
"""No kill switch: one topic that nobody hears must not stop the others, and a broker that is away
releases. A relay that stands by while another has the lane makes no progress, and is well."""
