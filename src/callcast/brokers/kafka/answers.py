"""Waiting for an answer of the driver, and finding out why there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from callcast.brokers.kafka.codes import TIMED_OUT
from callcast.brokers.kafka.faults import Faults
from callcast.ports.clock import Clock

R = TypeVar("R")

FIRST = 1.0
"""Seconds in which every address of a host is tried: of ``localhost`` often only one answers."""
LOOK = 0.02
"""Seconds between two looks whether the first answer is there."""


class Answers:
    """Of one connection.

    Where no question was ever answered and no server of the URL can be connected, an answer is not
    waited for to the end: most often the URL is wrong.
    """

    def __init__(self, faults: Faults, clock: Clock) -> None:
        self._faults = faults
        self._clock = clock
        self._is_reached = False

    async def of(self, future: Future[R], poll: Callable[[float], int]) -> R:
        """What the driver answers; cancelled, the driver is left to its answer.

        `poll` has the driver tell what is wrong: a question that times out does not say it.
        """
        waiting = asyncio.wrap_future(future)
        waiting.add_done_callback(_looked_at)
        try:
            if self._is_reached or await self._is_first_answered(waiting, poll):
                answer = await asyncio.shield(waiting)
                self._faults.answered()
                return answer
        except KafkaException:
            poll(0)
            raise
        raise KafkaException(KafkaError(TIMED_OUT))

    async def _is_first_answered(
        self, waiting: asyncio.Future[R], poll: Callable[[float], int]
    ) -> bool:
        """Wait for an answer, or until it is clear that there will be none."""
        end = self._clock.now() + FIRST
        while not waiting.done():
            await asyncio.wait([waiting], timeout=LOOK)
            poll(0)
            if self._faults.is_cut_off and self._clock.now() >= end:
                return waiting.done()
        self._is_reached = waiting.exception() is None
        return True


def _looked_at(future: asyncio.Future[R]) -> None:
    """Whoever asked may have gone: an error that comes then is nobody's."""
    if not future.cancelled():
        future.exception()
