"""The demo's client: places orders over HTTP, and keeps a log of what it was told."""

from __future__ import annotations

import random  # noqa: TID251 - the seed is the user's, to repeat a run
from collections.abc import Iterator

from callcast.cli.demo.account import Answer
from callcast.core.errors import NotSent, Remote, Unanswered
from callcast.ports.clock import Clock
from callcast.ports.tasks import Child, Tasks
from callcast.runtime.bus import Bus
from shop.contracts import CHECKOUT, Order

GOODS = ("tea", "mug")
OVERSIZED = "piano"
"""In stock, but no box fits it: a valid order that fulfilment cannot pack."""

PRICES = (450, 2_500)
"""Cents, from and to."""
OVERDRAWN = 250_000
"""Cents, more than any card in town is good for."""
OVERDRAWN_EVERY = 25
TWICE_EVERY = 20
"""Now and then the buyer clicks twice: the same order, at once, under the same key."""

IN_FLIGHT_MAX = 16
AGAIN = 0.2
"""Seconds from an answer to the next time that the same order is placed."""

WEIGHT: tuple[Answer, ...] = ("confirmed", "unanswered", "refused")


class Buyer:
    """Places orders, at most `IN_FLIGHT_MAX` at a time; `seed` decides what is in them.

    Their ids begin with `prefix`: on a broker that outlives the demo they were never there before.
    """

    def __init__(
        self, bus: Bus, clock: Clock, tasks: Tasks, *, seed: int, prefix: str = "o-"
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._tasks = tasks
        self._prefix = prefix
        self._orders = self._made(seed)
        self._under_way: list[Child] = []
        self.answers: dict[str, Answer] = {}
        self.sent: int = 0
        self.poison: str = f"{prefix}poison"
        """The id of the order that cannot be packed."""

    async def place(self, count: int, *, gap: float = 0.0) -> None:
        """Place `count` orders, `gap` seconds apart at least; returns when all were sent."""
        for _ in range(count):
            await self.place_one(next(self._orders))
            await self._clock.sleep(gap)

    async def place_one(self, order: Order) -> None:
        """Send one order as soon as there is room; its answer goes to the log."""
        self._under_way = [child for child in self._under_way if not child.done]
        while len(self._under_way) >= IN_FLIGHT_MAX:
            await self._under_way.pop(0).wait()
        self.sent += 1
        self._under_way.append(self._tasks.start(self._ask(order), name=f"order {order.id}"))
        if self.sent % TWICE_EVERY == 0:
            self._under_way.append(self._tasks.start(self._ask(order), name=f"order {order.id}"))

    async def insist(self, order: Order, *, patience: float) -> None:
        """Send one order again and again, under the same key, until it is confirmed.

        Past `patience`, in seconds, it stays as it is.
        """
        until = self._clock.now() + patience
        self.sent += 1
        await self._ask(order)
        while self.answers[order.id] != "confirmed" and self._clock.now() < until:
            await self._clock.sleep(AGAIN)
            await self._ask(order)

    async def settle(self) -> None:
        """Wait for all answers."""
        while self._under_way:
            await self._under_way.pop().wait()

    @staticmethod
    def call_id(order: str) -> str:
        """The id of the call that places this order, under which all that comes of it is known."""
        return f"checkout-{order}"

    async def _ask(self, order: Order) -> None:
        answers = {await self._answer(order), self.answers.get(order.id, "refused")}
        # Of two answers to a double click the weightier counts: one confirmation is an order.
        self.answers[order.id] = next(answer for answer in WEIGHT if answer in answers)

    async def _answer(self, order: Order) -> Answer:
        try:
            await self._bus.call(CHECKOUT, order, id=self.call_id(order.id))
        except (NotSent, Remote) as error:
            is_known = isinstance(error, NotSent) or error.status in {402, 409, 503}
            return "refused" if is_known else "unanswered"
        except Unanswered:
            return "unanswered"
        return "confirmed"

    def _made(self, seed: int) -> Iterator[Order]:
        dice = random.Random(seed)
        number = 0
        while True:
            number += 1
            cents = OVERDRAWN if number % OVERDRAWN_EVERY == 0 else dice.randint(*PRICES)
            yield Order(f"{self._prefix}{number:04}", dice.choice(GOODS), dice.randint(1, 3), cents)
