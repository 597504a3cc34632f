"""Slots: a small pool of coroutines that run deliveries, started on demand.

There is no task per message: a slot runs one delivery after the other, and a handler that does not
suspend ends within the same turn of the loop. Only when one does suspend are other slots woken.
Each delivery still has a context (`contextvars`) of its own, so that nothing set by one handler,
such as the current span, is seen by the next.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from callcast.core.context import AMBIENT, context_of
from callcast.core.outcome import Outcome, Release
from callcast.core.work import CONSUME, Work
from callcast.ports.broker import Delivery
from callcast.ports.observer import LoopBlocked
from callcast.ports.tasks import Child, Tasks
from callcast.runtime.ports import Ports
from callcast.runtime.subscription import Subscription
from callcast.runtime.verdicts import escaped, is_poison, poison

TURN = 0.004
"""Seconds after which a slot lets others run, though more is ready."""
BLOCKED = 0.1
"""Seconds of one step of a handler from which on its blocking of the loop is told."""

Steps = Generator[Any, Any, Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where slots take deliveries from, and whom they tell."""

    ready: deque[Delivery]
    started: Callable[[Delivery, float], None]
    ended: Callable[[Delivery, Outcome, float], None]
    fatal: Callable[[BaseException], None]
    """A handler ended with what should end the process."""


class Slots:
    """At most `subscription.slots` coroutines; all that is in `desk.ready` runs in one of them."""

    def __init__(
        self, subscription: Subscription, desk: Desk, *, ports: Ports, tasks: Tasks
    ) -> None:
        self._subscription = subscription
        self._name = subscription.contract.name
        self._group = subscription.source.group
        self._chain = subscription.run
        self._desk = desk
        self._now = ports.clock.now
        self._clock = ports.clock
        self._observer = ports.observer
        self._tasks = tasks
        self._children: list[Child] = []
        self._idle: list[asyncio.Future[None]] = []  # one for each slot that waits
        self._open = 0  # slots that have begun, or are about to, and have not ended
        self._waking = 0  # slots that were woken or started and have not run yet
        self._is_closing = False
        self._base = copy_context()
        self._base.run(AMBIENT.set, None)

    def wake(self, count: int) -> None:
        """See to it that `count` slots look for something ready."""
        count -= self._waking
        while count > 0 and self._idle:
            woken = self._idle.pop()
            if not woken.done():
                woken.set_result(None)
                self._waking += 1
                count -= 1
        while count > 0 and self._open < self._subscription.slots:
            self._waking += 1
            self._open += 1
            count -= 1
            name = f"slot of {self._subscription.source}"
            self._children = [child for child in self._children if not child.done]
            self._children.append(self._tasks.start(self._run(), name=name))

    async def close(self) -> None:
        """Cancel what runs: its verdict is `Release`. Returns when all slots have ended."""
        self._is_closing = True
        for child in self._children:
            child.cancel()
        for child in self._children:
            await child.wait()

    async def _run(self) -> None:
        ready, desk, clock = self._desk.ready, self._desk, self._now
        task = asyncio.current_task()
        try:
            while True:
                self._waking -= 1
                turn = now = clock()
                while ready:
                    delivery = ready.popleft()
                    began = now
                    desk.started(delivery, began)
                    step = self._begin(delivery)
                    if isinstance(step, _Suspended):
                        step = await self._carry_on(delivery, step)
                        turn = now = clock()
                    elif (now := clock()) - began > BLOCKED:
                        self._tell_blocked(delivery, now - began)
                    desk.ended(delivery, step, now)
                    if task is not None and task.cancelling():
                        return
                    if ready and now - turn > TURN:
                        await self._clock.sleep(0)
                        turn = now = clock()
                await self._rest()
        finally:
            self._open -= 1
            if ready and not self._is_closing:
                self.wake(1)

    async def _rest(self) -> None:
        """Wait to be woken."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(woken)
        try:
            await woken
        except asyncio.CancelledError:
            if not woken.cancelled():  # woken and cancelled in the same turn
                self._waking -= 1
            raise

    def _begin(self, delivery: Delivery) -> Outcome | _Suspended:
        """Run a delivery up to its first suspension, which most handlers do not have."""
        subscription = self._subscription
        if delivery.crashes and is_poison(delivery):
            return poison(delivery, handler=subscription.handler)
        message = delivery.message
        work = Work(
            CONSUME,
            self._name,
            message.id,
            subscription.contract,
            self._group,
            message.body,
            message,
            round=delivery.round,
            crashes=delivery.crashes,
        )
        context = self._base.copy()
        try:
            return _Suspended(context, *context.run(self._first, work))
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        except BaseException as error:  # noqa: BLE001 - every error has a verdict
            return self._escape(error, delivery)

    def _first(self, work: Work) -> tuple[Steps, object]:
        steps = self._chain(work).__await__()
        return steps, steps.send(None)

    async def _carry_on(self, delivery: Delivery, step: _Suspended) -> Outcome:
        """Run the rest of a delivery that has suspended, while other slots take what is ready."""
        if self._desk.ready:
            self.wake(len(self._desk.ready))
        try:
            return await self._driven(delivery, step)
        except GeneratorExit:  # the loop is gone
            raise
        except BaseException as error:  # noqa: BLE001 - every error has a verdict
            return self._escape(error, delivery)

    @types.coroutine
    def _driven(self, delivery: Delivery, step: _Suspended) -> Steps:
        """Await the rest of the chain, each of its steps inside the delivery's own context."""
        run, steps, pending = step.context.run, step.steps, step.pending
        clock = self._now
        began = clock()
        try:
            while True:
                try:
                    sent = yield pending
                except BaseException as error:  # noqa: BLE001 - thrown in, as into any coroutine
                    began = clock()
                    pending = run(steps.throw, error)
                else:
                    began = clock()
                    pending = run(steps.send, sent)
                if (took := clock() - began) > BLOCKED:
                    self._tell_blocked(delivery, took)
        except StopIteration as end:
            if (took := clock() - began) > BLOCKED:
                self._tell_blocked(delivery, took)
            outcome: Outcome = end.value
            return outcome

    def _escape(self, error: BaseException, delivery: Delivery) -> Outcome:
        if isinstance(error, asyncio.CancelledError):
            if self._is_closing:
                return Release(reason="stopped")
        elif not isinstance(error, Exception):
            self._desk.fatal(error)
        return escaped(error, delivery.round)

    def _tell_blocked(self, delivery: Delivery, took: float) -> None:
        subscription = self._subscription
        token = AMBIENT.set(context_of(delivery.message, subscription.service))
        try:
            self._observer.tell(LoopBlocked(subscription.handler, took))
        finally:
            AMBIENT.reset(token)


@dataclass(slots=True)
class _Suspended:
    """A delivery whose chain waits for something."""

    context: Context
    steps: Steps
    pending: object
    """What the chain waits for: handed to the task as it is."""
