"""Waiting until nothing is left to do: for tests, scripts and demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from callcast.ports.broker import Broker
from callcast.ports.clock import Clock
from callcast.runtime.host import Host

PAUSE_FIRST = 0.005
PAUSE_MAX = 0.1


class Open(Protocol):
    """An open bus, as far as idling looks at it."""

    @property
    def broker(self) -> Broker: ...  # noqa: D102 - the name says it
    @property
    def hosts(self) -> Sequence[Host]: ...  # noqa: D102 - as above


async def until_idle(bus: Open, clock: Clock, timeout: float) -> None:
    """Wait until the hosts' work is done; `TimeoutError` names what remains after `timeout` s.

    Two quiet looks in a row are asked for: between a settle and the relay of what the handler
    sent, both queues are empty for a moment.
    """
    deadline = clock.now() + timeout
    pause, quiet = PAUSE_FIRST, 0
    while quiet < 2:
        remains = await _remains(bus)
        quiet = 0 if remains else quiet + 1
        if remains and clock.now() >= deadline:
            raise TimeoutError(f"not idle after {timeout:g} s: {'; '.join(remains)}")
        await clock.sleep(pause)
        pause = min(PAUSE_MAX, pause * 1.5) if remains else PAUSE_FIRST


async def _remains(bus: Open) -> list[str]:
    remains: list[str] = []
    for host in bus.hosts:
        if pending := await host.outbox_pending():
            remains.append(f"{pending} messages in the outbox of {host.service.name!r}")
        for source in host.sources:
            lag = await bus.broker.lag(source)
            if lag.ready or lag.leased:
                remains.append(f"{source}: {lag.ready} ready, {lag.leased} in flight")
        busy = [worker for worker in host.workers if not worker.is_idle]
        remains.extend(f"{worker.subscription.handler} is busy" for worker in busy)
    return remains
