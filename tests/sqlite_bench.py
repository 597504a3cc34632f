"""A broker's file without its threads: each call is one transaction, at a time set by hand."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from callcast.brokers.sqlite import catalog, fetch, files, look, publish, reap, schema, settle
from callcast.brokers.sqlite.dbclock import SECOND, DatabaseClock
from callcast.brokers.sqlite.records import Group, Hand, Turn
from callcast.brokers.sqlite.settle import Settled, Verdict
from callcast.brokers.sqlite.writer import Writer
from callcast.core.errors import NotSent
from callcast.core.message import Message
from callcast.core.outcome import Outcome
from callcast.ports.broker import Delivery, Lag, Part, Source
from callcast.testing.clock import ManualClock

R = TypeVar("R")


class Table:
    """One file on a work bench."""

    def __init__(
        self, folder: Path, *, ordered: bool = False, groups: Iterable[str] = ("g",)
    ) -> None:
        self.manual = ManualClock()
        self.clock = DatabaseClock(self.manual)
        path = folder / "bench.db"
        files.claim(path)
        self.cx = files.connect_writer(path, "normal")
        self.owners = itertools.count(1)
        self.sources = [Source("t", name, ordered=ordered) for name in groups]

        def lay_out(cx: Connection) -> None:
            schema.prepare(cx, str(path))
            self.clock.anchor(cx)
            catalog.ensure(cx, ["t"], self.sources)

        self.run(lay_out)
        found = [look.find(self.cx, source) for source in self.sources]
        self.groups = [group for group in found if group is not None]

    def close(self) -> None:
        self.cx.close()

    def run(self, job: Callable[[Connection], R]) -> R:
        self.cx.execute("begin immediate")
        try:
            result = job(self.cx)
        except BaseException:
            self.cx.execute("rollback")
            raise
        self.cx.execute("commit")
        return result

    def turn(self, cx: Connection) -> Turn:
        return Turn(cx, self.clock.now())

    def pass_time(self, seconds: float) -> None:
        self.manual._now += seconds

    def join(
        self, *, part: Part = Part.READY, lease: float = 30.0, group: Group | None = None
    ) -> Hand:
        span = round(lease * SECOND)
        return Hand("me", next(self.owners), group or self.groups[0], part, span)

    def publish(self, *messages: Message, keeps: bool = False) -> list[NotSent | None]:
        batch = publish.prepare(messages, 1 << 20)
        return self.run(publish.Publish(batch, self.clock, keeps=keeps)).errors

    def send(self, *names: str, key: str | None = None) -> None:
        assert not any(self.publish(*(message(name, key=key) for name in names)))

    def fetch(self, hand: Hand, limit: int = 100) -> list[Delivery]:
        taken = self.run(lambda cx: fetch.fetch(self.turn(cx), hand, limit))
        if taken.block is not None:
            hand.blocks[taken.block.token] = taken.block
        for token in taken.lost:
            hand.blocks.pop(token).end()
        if taken.has_more:
            return self.fetch(hand, limit)
        return list(taken.deliveries)

    def settle(self, hand: Hand, verdicts: Sequence[Verdict]) -> Settled:
        result = self.run(lambda cx: settle.settle(self.turn(cx), hand, verdicts))
        settle.settled(hand, result, self.clock.now())
        return result

    def rule(self, hand: Hand, deliveries: Iterable[Delivery], outcome: Outcome) -> Settled:
        return self.settle(hand, [(delivery, outcome) for delivery in deliveries])

    def renew(self, hand: Hand, deliveries: Iterable[Delivery]) -> None:
        settle.renewed(hand, self.run(lambda cx: settle.renew(self.turn(cx), hand, deliveries)))

    def leave(self, hand: Hand) -> None:
        self.run(lambda cx: settle.release_all(self.turn(cx), hand))
        for block in hand.blocks.values():
            block.end()
        hand.blocks.clear()

    def reap(self) -> list[int]:
        return self.run(lambda cx: reap.of_ended(self.turn(cx)))

    def trim(self) -> None:
        while self.run(lambda cx: reap.trim(cx, self.groups[0].topic, None)):
            continue

    def lag(self, group: Group | None = None) -> Lag:
        return look.lag(self.cx, group or self.groups[0], self.clock)

    def count(self, table: str) -> int:
        return int(self.cx.execute(f"select count(*) from {table}").fetchone()[0])


class Holdup:
    """Keeps the writer's thread, so that jobs gather behind it."""

    def __init__(self, writer: Writer) -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.job = writer.start(self._run)
        assert self.began.wait(5)

    def _run(self, cx: Connection) -> None:
        self.began.set()
        assert self.go.wait(5)


def message(name: str, *, key: str | None = None, **more: object) -> Message:
    return Message(name, "test", "t", "t", name.encode(), key, **more)  # type: ignore[arg-type]


def ids(deliveries: Iterable[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]
