"""The acts of the demo: each places its share of the orders and breaks one thing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from callcast.cli.demo.account import Fault
from callcast.cli.demo.buyer import OVERSIZED, Buyer
from callcast.cli.demo.house import House
from callcast.cli.demo.watch import Watch
from callcast.cli.letters import Redrive, Wanted, browse
from callcast.core.message import Message
from callcast.ports.broker import Broker, Rewinds, Source, need
from callcast.ports.clock import Clock
from callcast.ports.tasks import Tasks
from callcast.runtime.bus import Bus
from shop.contracts import ADD_BOX, PLACED, RELEASE, VOID, Box, Order

GAP = 0.04
"""Seconds between two orders: 25 a second."""
LOOK = 0.02
PATIENCE = 8.0
"""Seconds that a fault has to show its effect."""
HANDFUL = 3
HANDFUL_WAIT = 1.0
DOWN = 1.0
"""Seconds that fulfilment stays away."""
BREAKER_WAIT = 2.2
"""Seconds, a little above the doubled wait of a breaker that failed its first trial."""

PACKING = Source(PLACED.topic, "fulfilment", ordered=True)
REPEATED: tuple[str, ...] = (PLACED.topic, RELEASE.topic, VOID.topic)
"""Topics whose messages are delivered a second time: orders that were taken, and every undo."""


class Shares(Struct, frozen=True):
    """How many orders each act places; with the poison order they are all."""

    calm: int
    kill: int
    slow: int
    failing: int
    after: int


def shares(orders: int) -> Shares:
    """Divide the orders; few are enough for each fault to hit something."""
    slow = max(4, orders * 12 // 100)
    failing = max(3, orders * 8 // 100)
    kill = max(4, orders * 30 // 100)
    calm = max(1, orders * 15 // 100)
    return Shares(calm, kill, slow, failing, orders - 1 - calm - kill - slow - failing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What the acts play with."""

    house: House
    broker: Broker
    bus: Bus
    buyer: Buyer
    watch: Watch
    clock: Clock
    tasks: Tasks
    say: Callable[[str], None]
    began: float
    since: float
    """When it began, on the wall clock: of what was published before, nothing is ours."""


@dataclass(slots=True)
class Acts:
    """Played in the order in which they stand here."""

    stage: Stage
    faults: list[Fault] = field(default_factory=list[Fault])
    missed: list[str] = field(default_factory=list[str])
    redriven: set[str] = field(default_factory=set[str])
    poisoned: float = 0.0
    """When the order was placed that cannot be packed."""

    async def calm(self, count: int) -> None:
        """Orders as on any day, and among them one that cannot be packed."""
        await self.stage.buyer.place(count // 2, gap=GAP)
        self.stage.say(f"one order is for a {OVERSIZED}, and no box fits it: the poison order")
        self.poisoned = self._now()
        # On a busy machine the first calls take too long and open a breaker: an order that was
        # refused is placed again, since without this one nothing would be poisoned.
        poison = Order(self.stage.buyer.poison, OVERSIZED, 1, 99_000)
        await self.stage.buyer.insist(poison, patience=PATIENCE)
        await self.stage.buyer.place(count - count // 2, gap=GAP)

    async def kill(self, count: int) -> None:
        """Kill fulfilment while it holds work, and start it again."""
        stage = self.stage
        at = self._now()
        # Packing takes a few milliseconds, and a look now and then would miss it: so fulfilment
        # is made to wait for its database, and dies with the work in its hands.
        with stage.watch.ledgers.locked("fulfilment"):
            placing = stage.tasks.start(stage.buyer.place(count, gap=GAP), name="orders")
            in_flight = await self._killed_when_busy()
        self._fault("fulfilment killed", at, in_flight)
        stage.say(f"fulfilment is killed with SIGKILL while it holds {in_flight} messages")
        await stage.clock.sleep(DOWN)
        await stage.house.restart("fulfilment")
        stage.say("fulfilment is back")
        await placing.wait()

    async def slow(self, count: int) -> None:
        """A slow bank: attempts time out, the breaker opens, orders are refused at once."""
        stage, watch = self.stage, self.stage.watch
        at, before = self._now(), (watch.timeouts, watch.opened)
        stage.say("the bank is slow: payments does not answer in time")
        stage.house.set_mood("slow")
        await stage.buyer.place(count, gap=GAP)
        await self._until(lambda: watch.timeouts > before[0] and watch.opened > before[1])
        self._fault("payments slow", at, watch.timeouts - before[0])
        if watch.opened == before[1]:
            self.missed.append("payments were slow, but no breaker opened")
        await stage.buyer.settle()

    async def failing(self, count: int) -> None:
        """A bank that fails: the breaker's trial is answered with an error, and it opens again."""
        stage, watch = self.stage, self.stage.watch
        at, before = self._now(), watch.failures
        stage.say("the bank fails: payments answers with an error")
        stage.house.set_mood("failing")
        await stage.clock.sleep(BREAKER_WAIT / 2)
        await stage.buyer.place(count, gap=GAP * 5)
        await self._until(lambda: watch.failures > before)
        self._fault("payments failing", at, watch.failures - before)
        await stage.buyer.settle()

    async def after(self, count: int) -> None:
        """A bank that is well: the breaker tries carefully, closes, and business goes on."""
        stage, watch = self.stage, self.stage.watch
        stage.house.set_mood("fine")
        stage.say("the bank is well again; the breaker finds out with a few trials")
        await stage.clock.sleep(BREAKER_WAIT)
        for _ in range(count):
            await stage.buyer.place(
                1, gap=GAP if "open" not in watch.breakers.values() else GAP * 5
            )
        await stage.buyer.settle()

    async def repeat(self) -> None:
        """Deliver what was placed and what was undone a second time, under the same ids."""
        stage, watch = self.stage, self.stage.watch
        at, before = self._now(), watch.duplicates
        messages = [each for topic in REPEATED for each in await self._kept(topic)]
        await stage.broker.publish(messages)
        stage.say(f"{len(messages)} messages are delivered a second time, under the same ids")
        await self._until(lambda: watch.duplicates >= before + len(messages) // 2)
        self._fault("delivered twice", at, watch.duplicates - before)

    async def mend(self) -> None:
        """Mend what the poison order died of, and redrive it from the dead letters."""
        stage = self.stage
        letters = Wanted(group=PACKING.group)

        async def found() -> Sequence[str | None]:
            return [letter.key async for letter, _ in browse(stage.broker, letters)]

        await self._until_async(found)
        dead = {key for key in await found() if key is not None}
        self._fault("poison order", self.poisoned, len(dead))
        await stage.bus.call(ADD_BOX, Box(OVERSIZED, "crate"))
        redrive = Redrive(stage.broker, letters, clock=stage.clock, by="demo")
        async for result in redrive():
            if result.error:
                self.missed.append(f"a dead letter could not be redriven: {result.error}")
        self.redriven |= dead
        stage.say(f"a box for a {OVERSIZED} is found, and dead letters redriven: {len(dead)}")

    async def _killed_when_busy(self) -> int:
        """How many orders fulfilment held when killed: it is frozen while they are counted."""
        stage = self.stage
        process = stage.house.services["fulfilment"]
        began = stage.clock.now()
        while True:
            process.freeze()
            held = len(stage.watch.in_hand() - {stage.buyer.poison})
            waited = stage.clock.now() - began
            # A handful makes the better fault; with few orders any work in hand will do.
            if held >= HANDFUL or (held and waited > HANDFUL_WAIT) or waited > PATIENCE:
                await process.kill()
                return held
            process.thaw()
            await stage.clock.sleep(LOOK)

    async def _kept(self, topic: str) -> Sequence[Message]:
        """Every message of this demo that the broker still keeps."""
        log = need(self.stage.broker, Rewinds)
        kept: list[Message] = []
        after = ""
        while page := await log.read(topic, since=self.stage.since, after=after):
            kept.extend(glimpse.message for glimpse in page)
            after = page[-1].position
        return kept

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Return when it is so, or when patience ends: the account then says what is missing."""

        async def asked() -> bool:
            return is_so()

        await self._until_async(asked)

    async def _until_async(self, is_so: Callable[[], Awaitable[object]]) -> None:
        clock = self.stage.clock
        until = clock.now() + PATIENCE
        while not await is_so() and clock.now() < until:
            await clock.sleep(LOOK)

    def _fault(self, kind: str, at: float, in_flight: int) -> None:
        self.faults.append(Fault(kind, round(at, 1), in_flight))

    def _now(self) -> float:
        return self.stage.clock.now() - self.stage.began
