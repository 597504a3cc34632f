"""The demo as a whole: house, acts, quiet, account. Whatever happens, nothing is left behind."""

from __future__ import annotations

import logging
import secrets
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from callcast.cli.demo.account import Evidence, Verdict, judge
from callcast.cli.demo.acts import Acts, Stage, shares
from callcast.cli.demo.buyer import Buyer
from callcast.cli.demo.ground import Ground
from callcast.cli.demo.house import COMMAND, SETTINGS, House
from callcast.cli.demo.keepsake import buyers_bus, kept
from callcast.cli.demo.view import View
from callcast.cli.demo.watch import Numbers, Watch
from callcast.cli.letters import Letter, Wanted, browse
from callcast.ports.clock import Clock
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.tasks import AsyncioTasks

TICK = 0.25
"""Seconds between two looks of the live view."""
QUIET_LOOKS = 3
"""So often in a row nothing may wait before it is quiet: work passes between outbox and broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the demo runs. `quiet` is how many seconds the last work may take at the end."""

    broker: str | None = None
    """None is a file of the demo's own."""
    orders: int = 300
    seed: int = 1
    quiet: float = 20.0
    command: Sequence[str] = COMMAND
    """What starts a service; its arguments follow."""


class Demo:
    """Runs once."""

    def __init__(self, options: Options, view: View) -> None:
        self._options = options
        self._view = view
        self._clock = AsyncioClock()
        self._tasks = AsyncioTasks(_failed)
        self.record: str = ""
        """Where the record is after the run; empty when it could not be kept."""
        self.order: str = ""
        """By what the record knows the order that could not be packed."""

    async def run(self) -> Verdict:
        """Play all acts and judge; raises `Failure` when a service does not start."""
        async with self._opened() as house:
            waits = " ".join(f"{name}={value}" for name, value in SETTINGS.items())
            self._view.say(f"waits are shorter than the defaults: {waits}")
            await house.open()
            self._view.say(f"five services run as processes of their own in {house.folder}")
            async with self._stage(house) as stage:
                acts = Acts(stage)
                await self._play(acts)
                unstopped = await stage.house.stop()
                verdict = judge(await self._evidence(stage, acts, unstopped))
                self.order = stage.buyer.call_id(stage.buyer.poison)
            self.record = kept(house.record)
            return verdict

    async def _play(self, acts: Acts) -> None:
        stage, share = acts.stage, shares(self._options.orders)
        ticking = self._tasks.start(self._tick(stage), name="live view")
        try:
            await acts.calm(share.calm)
            await acts.kill(share.kill)
            await acts.slow(share.slow)
            await acts.failing(share.failing)
            await acts.after(share.after)
            await acts.repeat()
            await acts.mend()
            self._view.say("all is done; the last messages find their way")
            await self._calm_down(stage, acts)
        finally:
            ticking.cancel()
            await ticking.wait()
            self._view.close()

    async def _calm_down(self, stage: Stage, acts: Acts) -> None:
        """Wait until nothing is under way; past the patience the account says what is missing."""
        until = self._clock.now() + self._options.quiet
        looks = 0
        while looks < QUIET_LOOKS and self._clock.now() < until:
            looks = looks + 1 if await self._is_over(stage, acts) else 0
            await self._clock.sleep(0.1)

    async def _is_over(self, stage: Stage, acts: Acts) -> bool:
        """Nothing waits anywhere, and the account closes.

        The second for brokers that do not tell what a worker of another process holds.
        """
        if not await stage.watch.is_quiet():
            return False
        return not judge(await self._evidence(stage, acts)).problems

    async def _evidence(self, stage: Stage, acts: Acts, unstopped: Sequence[str] = ()) -> Evidence:
        stage.watch.look()
        letters = await self._letters(stage)
        rows = stage.watch.ledgers.rows
        return Evidence(
            answers=stage.buyer.answers,
            orders=rows("orders"),
            holds=rows("holds"),
            released=rows("released"),
            charges=rows("charges"),
            voided=rows("voided"),
            parcels=rows("parcels"),
            mails=rows("mails"),
            dead=[letter.key or letter.id for letter in letters],
            redriven=acts.redriven,
            faults=sorted(acts.faults, key=lambda fault: fault.at),
            missed=[*acts.missed, *(f"{name} did not stop when asked" for name in unstopped)],
        )

    async def _letters(self, stage: Stage) -> Sequence[Letter]:
        groups = {source.group for source in stage.house.ground.sources}
        return [
            letter
            for group in sorted(groups)
            async for letter, _ in browse(stage.broker, Wanted(group=group))
        ]

    async def _tick(self, stage: Stage) -> None:
        while True:
            stage.watch.look()
            self._view.show(await self._numbers(stage))
            await self._clock.sleep(TICK)

    async def _numbers(self, stage: Stage) -> Numbers:
        answers = list(stage.buyer.answers.values())
        return replace(
            await stage.watch.numbers(),
            elapsed=self._clock.now() - stage.began,
            sent=stage.buyer.sent,
            confirmed=answers.count("confirmed"),
            refused=answers.count("refused"),
        )

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[House]:
        """The house in a folder of its own; processes end before the folder goes."""
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="callcast-demo-"))
            ground = Ground(self._options.broker, Path(folder))
            await ground.take(self._clock)
            stack.push_async_callback(ground.clear, self._clock)
            house = House(Path(folder), self._clock, ground, command=self._options.command)
            stack.push_async_callback(house.close)
            stack.push_async_callback(self._tasks.close)
            yield house

    @asynccontextmanager
    async def _stage(self, house: House) -> AsyncGenerator[Stage]:
        async with AsyncExitStack() as stack:
            clock: Clock = self._clock
            broker = house.ground.open(clock)
            stack.push_async_callback(broker.close)
            peers = {name: process.url for name, process in house.services.items()}
            bus = await stack.enter_async_context(buyers_bus(house.record, peers))
            yield Stage(
                house=house,
                broker=broker,
                bus=bus,
                buyer=Buyer(
                    bus, clock, self._tasks, seed=self._options.seed, prefix=_prefix(house.ground)
                ),
                watch=Watch(house, broker),
                clock=clock,
                tasks=self._tasks,
                say=self._view.say,
                began=clock.now(),
                since=clock.wall(),
            )


def _prefix(ground: Ground) -> str:
    """Of order ids: a server may still know those of an earlier demo."""
    return "o-" if ground.is_own else f"o-{secrets.token_hex(3)}-"


def _failed(name: str, error: BaseException) -> None:
    logging.getLogger("callcast").error("%s failed", name, exc_info=error)
