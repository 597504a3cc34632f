"""A bus for tests of services: memory broker, a clock moved by hand, a look at what was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from callcast.brokers.memory import MemoryBroker
from callcast.core.contract import Event, Operation
from callcast.core.message import Message
from callcast.policies.silent import Silent
from callcast.ports.broker import Part
from callcast.ports.failpoints import nowhere
from callcast.runtime import registry
from callcast.runtime.bus import Bus
from callcast.runtime.chance import Ids
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.peers import Peer
from callcast.runtime.ports import Ports
from callcast.runtime.service import Service
from callcast.runtime.settings import Settings
from callcast.testing.clock import ManualClock

Q = TypeVar("Q")
A = TypeVar("A")
T = TypeVar("T")


class RecordingBroker(MemoryBroker):
    """A memory broker that remembers what was published, and minds no event that nobody hears."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.published: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish, and remember."""
        await super().publish([replace(message, unheard=True) for message in messages])
        self.published.extend(messages)


class ServiceBus(Bus):
    """What `callcast.testing.bus` gives: a `Bus` that a test can look into."""

    def __init__(
        self,
        services: Sequence[Service],
        peers: Mapping[str, str | Peer],
        settings: Settings | None,
    ) -> None:
        self.clock: ManualClock = ManualClock()
        self.broker: RecordingBroker = RecordingBroker(self.clock)
        self._codec = registry.json_codec()
        ports = Ports(
            clock=self.clock, dice=lambda: 0.5, new_id=Ids(), observer=Silent(), failpoints=nowhere
        )
        super().__init__(
            self.broker,
            name=services[0].name if services else "test",
            services=services,
            peers=peers,
            settings=settings or Settings(),
            ports=ports,
        )

    async def idle(self, timeout: float = 30.0) -> None:
        """As `Bus.idle`; waits in real time, since threads do not follow the clock of the test."""
        await self.idle_on(AsyncioClock(), timeout)

    async def advance(self, seconds: float) -> None:
        """Move time on, and let everything that was waiting for it run."""
        await self.clock.advance(seconds)
        await self.idle()

    def sent(self, contract: Event[T] | Operation[T, A]) -> list[T]:
        """The values published or cast so far under this contract, oldest first."""
        form = contract.type if isinstance(contract, Event) else contract.request
        decode = self._codec.decoder(form)
        return [
            cast("T", decode(message.body))
            for message in self.broker.published
            if message.type == contract.name and message.group is None
        ]

    async def dead(self, contract: Event[Any] | Operation[Any, Any] | None = None) -> list[Message]:
        """The dead letters so far, of one contract or of all; why is in their headers."""
        found: list[Message] = []
        for source in await self.broker.sources():
            if contract is None or source.topic == contract.topic:
                letters = await self.broker.browse(source, part=Part.DEAD, limit=1_000)
                found.extend(letter.message for letter in letters)
        return found


def bus(
    *services: Service,
    peers: Mapping[str, Service | str | Peer] | None = None,
    settings: Settings | None = None,
) -> ServiceBus:
    """A bus for a test: ``async with callcast.testing.bus(warehouse, peers={"payments": fake})``.

    A `Service` among `peers` stands in for the real one, in this process; it serves under the
    name that it is declared with. Nothing leaves the process; time moves by `advance` only.
    """
    given = peers or {}
    fakes = [peer for peer in given.values() if isinstance(peer, Service)]
    others = {name: peer for name, peer in given.items() if not isinstance(peer, Service)}
    return ServiceBus([*services, *fakes], others, settings)
