"""One worker's hold on a source: it waits and asks; the writer's thread decides."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from callcast.brokers.sqlite import fetch, settle
from callcast.brokers.sqlite.bells import Bell
from callcast.brokers.sqlite.engine import Engine
from callcast.brokers.sqlite.fetch import Taken
from callcast.brokers.sqlite.jobs import Closed
from callcast.brokers.sqlite.records import Hand, Turn
from callcast.brokers.sqlite.settle import Settled, Verdict
from callcast.core.errors import CallcastError, Misuse, Unavailable
from callcast.core.outcome import Release
from callcast.ports.broker import Delivery, Unsettled
from callcast.ports.clock import Clock

RENEW_WAIT = 10.0
"""Seconds that `renew` waits for the disk."""


class SqliteConsumer:
    """A consumer of one part of a source. Made by `SqliteBroker.consume`."""

    def __init__(
        self,
        engine: Engine,
        hand: Hand,
        *,
        clock: Clock,
        on_close: Callable[[SqliteConsumer], None],
    ) -> None:
        self._engine = engine
        self._hand = hand
        self._clock = clock
        self._on_close = on_close
        self._pid = os.getpid()
        self._bell = Bell(hand, clock)
        engine.bells.add(self._bell)

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Hand over up to `limit` deliveries; waits for the first one only.

        Raises `Unavailable` when the file cannot be written, or the group was retired.
        """
        self._check_process()
        end = self._clock.now() + wait
        must_look = wait <= 0
        while not self._hand.is_closed:
            if self._bell.answered() or must_look:
                taken = await self._take(limit)
                if taken.deliveries:
                    return taken.deliveries
                if taken.has_more:
                    continue
            if self._clock.now() >= end:
                break
            await self._bell.wait(end)
        return ()

    async def settle(self, verdicts: Sequence[Verdict]) -> None:
        """Carry out all verdicts in one commit; raises `Unsettled`, the rest being settled.

        A return means durable (with ``synchronous="full"``). Cancelled, it is carried out all the
        same.
        """
        self._check_process()
        hand, now = self._hand, self._engine.clock.now
        try:
            result = await self._engine.writer.do(
                lambda cx: settle.settle(Turn(cx, now()), hand, verdicts), self._settled
            )
        except Closed:
            raise Unsettled(lost=[delivery for delivery, _ in verdicts], why="closed") from None
        except CallcastError as error:
            failed = [delivery for delivery, _ in verdicts]
            raise Unsettled(failed=failed, why=str(error)) from error
        if result.lost:
            raise Unsettled(lost=result.lost)

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Extend these leases by a full one from now; what is lost stays lost.

        Returns when that is durable; needs no event loop. Raises `Unavailable` when the disk
        does not answer.
        """
        self._check_process()
        hand, clock = self._hand, self._engine.clock
        try:
            self._engine.writer.start(
                lambda cx: settle.renew(Turn(cx, clock.now()), hand, deliveries),
                lambda parted: settle.renewed(hand, parted),
                ends_group=True,  # what comes behind must know the parted leases
            ).wait(RENEW_WAIT)
        except Closed:
            return  # closed meanwhile: all that it held is given back
        except CallcastError as error:
            raise Unavailable(f"{hand.group.name}: leases were not renewed: {error}") from error

    async def close(self) -> None:
        """Give back what is still held, uncounted, and end. Idempotent.

        Raises `Unavailable` when that cannot be written: the end of the leases frees it then.
        """
        hand = self._hand
        if hand.is_closed:
            return
        hand.is_closed = True
        self._on_close(self)
        if self._pid != os.getpid():
            return  # the parent holds it still
        self._engine.bells.discard(self._bell)
        self._bell.ring()
        now = self._engine.clock.now
        try:
            await self._engine.writer.do(
                lambda cx: settle.release_all(Turn(cx, now()), hand), self._released
            )
        except Closed:
            return
        except CallcastError as error:
            raise Unavailable(f"{hand.group.name}: could not give back: {error}") from error

    async def _take(self, limit: int) -> Taken:
        hand, now = self._hand, self._engine.clock.now
        try:
            taken = await self._engine.writer.do(
                lambda cx: fetch.fetch(Turn(cx, now()), hand, limit),
                self._taken,
                orphaned=self._give_back,
                is_voidable=True,
            )
        except Closed:
            return Taken()
        except Misuse:
            raise
        except CallcastError as error:
            raise Unavailable(f"{hand.group.name}: cannot fetch: {error}") from error
        if taken.is_retired and not hand.is_closed:
            raise Unavailable(f"the group {hand.group.name} was retired: ensure it anew")
        # There may be more behind a full hand; else it is known when to look again.
        self._bell.due = self._clock.now() + (0.0 if taken.deliveries else taken.wait)
        return taken

    def _taken(self, taken: Taken) -> None:
        """Remember what is out; in the writer's thread."""
        hand = self._hand
        if taken.block is not None:
            hand.blocks[taken.block.token] = taken.block
        for token in taken.lost:
            block = hand.blocks.pop(token, None)
            if block is not None:
                block.end()
        if taken.freed:
            self._engine.tell([hand.group.topic])

    def _settled(self, result: Settled) -> None:
        """Forget what is settled, and say what became free; in the writer's thread."""
        topic = self._hand.group.topic
        ended = settle.settled(self._hand, result, self._engine.clock.now())
        if result.frees:
            self._engine.tell([topic], others=not self._hand.group.is_ordered)
        self._engine.leases_ended(topic, ended)

    def _released(self, has_any: bool) -> None:  # noqa: FBT001 - the answer of `release_all`
        """Forget everything; in the writer's thread."""
        for block in self._hand.blocks.values():
            block.end()
        self._hand.blocks.clear()
        if has_any:
            self._engine.tell([self._hand.group.topic])

    def _give_back(self, taken: Taken) -> None:
        """Release what a cancelled fetch still obtained, before anything else happens."""
        if not taken.deliveries:
            return
        hand, now = self._hand, self._engine.clock.now
        verdicts = [(delivery, Release()) for delivery in taken.deliveries]
        try:
            self._engine.writer.start(
                lambda cx: settle.settle(Turn(cx, now()), hand, verdicts),
                self._settled,
                is_urgent=True,
            )
        except Closed:
            return  # closing gives it back

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise Misuse(
                f"this consumer of {self._hand.group.name} was opened before a fork: open one in"
                " each process"
            )
