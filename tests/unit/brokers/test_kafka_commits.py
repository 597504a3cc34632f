"""When one member of a Kafka group commits, and who waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from kafka_parts import Partition, record

from callcast.brokers.kafka import commits
from callcast.brokers.kafka.commits import PACE, REFUSED_PAUSE, Commits
from callcast.brokers.kafka.window import Commit
from callcast.core.errors import Unavailable
from callcast.testing import ManualClock


class Committing:
    """The commits of a member whose partition has three messages."""

    def __init__(self) -> None:
        self.partition = Partition([record(at) for at in range(3)], 3)
        self.clock = ManualClock()
        self.sent: list[Sequence[Commit]] = []
        self.refuses = False
        self.commits = Commits(
            self.partition.desk, threading.Lock(), send=self.send, clock=self.clock
        )

    def send(self, plans: Sequence[Commit]) -> Sequence[Commit]:
        self.sent.append(plans)
        return plans if self.refuses else ()

    def done(self) -> None:
        """One more message is done."""
        self.partition.settle(self.partition.take(1))


async def test_commits_are_paced_unless_somebody_waits_for_one() -> None:
    one = Committing()
    one.commits.pump()
    taken = len(one.sent)
    one.done()
    one.commits.pump()
    assert len(one.sent) == taken
    await one.clock.advance(PACE)
    one.commits.pump()
    assert len(one.sent) == taken + 1
    one.done()
    waiting = asyncio.ensure_future(one.commits.durable())
    await asyncio.sleep(0)
    assert one.commits.is_awaited
    one.commits.pump()
    await waiting
    assert len(one.sent) == taken + 2
    assert not one.commits.is_awaited


async def test_who_waits_for_what_went_with_an_earlier_commit_waits_no_more() -> None:
    one = Committing()
    one.commits.pump()
    waiting = asyncio.ensure_future(one.commits.durable())
    await asyncio.sleep(0)
    count = len(one.sent)
    one.commits.pump()
    await waiting
    assert len(one.sent) == count


async def test_a_refused_commit_is_sent_again_after_a_while() -> None:
    one = Committing()
    one.done()
    one.refuses = True
    waiting = asyncio.ensure_future(one.commits.durable())
    await asyncio.sleep(0)
    one.commits.pump()
    one.refuses = False
    one.commits.pump()
    assert len(one.sent) == 1
    assert not waiting.done()
    await one.clock.advance(REFUSED_PAUSE)
    one.commits.pump()
    await waiting
    assert [plan.offset for plans in one.sent for plan in plans] == [1, 1]
    assert one.partition.window.base == 1


async def test_nobody_waits_for_a_commit_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "PATIENCE", 0.01)
    one = Committing()
    with pytest.raises(Unavailable, match="no commit was accepted within"):
        await one.commits.durable()
    one.commits.pump()
    waiting = asyncio.ensure_future(one.commits.durable())
    await asyncio.sleep(0)
    one.commits.end()
    await waiting
    await one.commits.durable()
    one.done()
    count = len(one.sent)
    await one.clock.advance(PACE)
    one.commits.pump()
    assert len(one.sent) == count


def test_a_commit_whose_waiter_is_gone_with_its_loop_is_nobody_s() -> None:
    one = Committing()
    loop = asyncio.new_event_loop()
    one.commits._waiting.append(loop.create_future())
    loop.close()
    one.commits.pump()
    assert not one.commits.is_awaited
