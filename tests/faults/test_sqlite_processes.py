"""Several processes on one file, and what SIGKILL leaves of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import statistics
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_child import SOURCE, broker_at, end, line, message, start

from callcast.brokers.sqlite import SqliteBroker
from callcast.core.errors import Misuse
from callcast.core.outcome import DONE
from callcast.ports.broker import Delivery, Lag, Source


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


async def opened(path: Path, *sources: Source) -> SqliteBroker:
    broker = broker_at(path)
    await broker.ensure([], sources or [SOURCE])
    return broker


async def lag_of(broker: SqliteBroker, *, ready: int, within: float) -> float:
    """Seconds until so many are ready; fails when that takes too long."""
    began = time.monotonic()
    while (await broker.lag(SOURCE)).ready != ready:
        assert time.monotonic() - began < within, await broker.lag(SOURCE)
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_four_processes_publish_a_thousand_each_without_an_error(path: Path) -> None:
    broker = await opened(path)
    children = [start("publish", path, f"p{number}", 1_000) for number in range(4)]
    said = [await asyncio.to_thread(child.communicate, timeout=50) for child in children]
    assert [child.returncode for child in children] == [0] * 4
    acknowledged = [name for out, _ in said for name in out.split()]
    consumer = await broker.consume(SOURCE)
    there: list[Delivery] = []
    while taken := await consumer.fetch(500, 0.0):
        there.extend(taken)
        await consumer.settle([(one, DONE) for one in taken])
    assert Counter(one.message.id for one in there) == Counter(acknowledged)
    assert len(there) == 4_000
    await broker.close()


async def test_a_publisher_killed_in_the_middle_leaves_whole_batches_only(path: Path) -> None:
    broker = await opened(path)
    for attempt in range(5):
        child = start("batches", path)
        for _ in range(3 + 4 * attempt):
            await asyncio.to_thread(line, child)
        child.kill()
        assert child.stdout is not None
        with (
            child.stdout as said
        ):  # `communicate` leaves out what came along with a line read before
            out = said.read()
        assert child.wait(20) == -signal.SIGKILL
        acknowledged = 3 + 4 * attempt + len(out.split())
        consumer = await broker.consume(SOURCE)
        batches: Counter[str] = Counter()
        while taken := await consumer.fetch(500, 0.0):
            batches.update(one.message.id.partition("-")[0] for one in taken)
            await consumer.settle([(one, DONE) for one in taken])
        assert set(batches.values()) == {100}
        assert acknowledged <= len(batches) <= acknowledged + 1  # one was never acknowledged
        await consumer.close()
    await broker.close()


async def test_a_worker_killed_with_a_long_lease_frees_its_messages_in_two_seconds(
    path: Path,
) -> None:
    broker = await opened(path)
    await broker.publish([message(f"m{number}") for number in range(64)])
    child = start("hold", path, 64, 600)
    assert await asyncio.to_thread(line, child) == "64"
    assert (await broker.lag(SOURCE)).leased == 64
    consumer = await broker.consume(SOURCE)
    waiting = asyncio.ensure_future(consumer.fetch(100, 30.0))
    await asyncio.sleep(0)
    killed = time.monotonic()
    end(child, kill=True)
    taken = await waiting
    assert time.monotonic() - killed < 2.0
    assert sorted(one.message.id for one in taken) == sorted(f"m{n}" for n in range(64))
    assert {one.crashes for one in taken} == {1}
    await broker.close()


async def test_whoever_opens_the_file_has_the_messages_of_the_dead_at_once(path: Path) -> None:
    """A program that runs for less than a second frees them too: the first fetch has them."""
    broker = await opened(path)
    await broker.publish([message(f"m{number}") for number in range(64)])
    await broker.close()
    child = start("hold", path, 64, 600)
    assert await asyncio.to_thread(line, child) == "64"
    end(child, kill=True)
    broker = broker_at(path)
    consumer = await broker.consume(SOURCE)
    taken = await consumer.fetch(100, 0.0)
    assert {(one.message.id, one.crashes) for one in taken} == {(f"m{n}", 1) for n in range(64)}
    await broker.close()


async def test_whoever_opens_the_file_leaves_the_living_theirs(path: Path) -> None:
    broker = await opened(path)
    await broker.publish([message("m")])
    consumer = await broker.consume(SOURCE)
    assert len(await consumer.fetch(1, 0.0)) == 1
    other = broker_at(path)
    lag = await other.lag(SOURCE)
    assert (lag.ready, lag.leased) == (0, 1)
    await other.close()
    await broker.close()


async def test_a_worker_that_lives_keeps_its_messages(path: Path) -> None:
    broker = await opened(path)
    await broker.publish([message("m")])
    child = start("hold", path, 1, 600)
    assert await asyncio.to_thread(line, child) == "1"
    consumer = await broker.consume(SOURCE)
    assert list(await consumer.fetch(1, 3.0)) == []
    end(child, kill=True)
    await broker.close()


async def test_a_handler_that_blocks_the_loop_for_three_leases_runs_once(path: Path) -> None:
    broker = await opened(path)
    await broker.publish([message(f"m{number}") for number in range(5)])
    blocked = start("block", path, 0.6, 3)
    assert await asyncio.to_thread(line, blocked) == "5"
    beside = start("drain", path, 0.6)
    assert await asyncio.to_thread(line, blocked) == "settled"
    assert end(blocked) == 0
    out, _ = await asyncio.to_thread(beside.communicate, timeout=20)
    assert out.split() == []
    assert await broker.lag(SOURCE) == Lag()
    await broker.close()


async def test_a_message_wakes_another_process_well_below_a_millisecond_or_so(path: Path) -> None:
    pong = Source("pong", "g")
    broker = await opened(path, Source("ping", "g"), pong)
    consumer = await broker.consume(pong)
    child = start("echo", path)
    assert await asyncio.to_thread(line, child) == "ready"
    took: list[float] = []
    for number in range(200):
        began = time.perf_counter()
        await broker.publish([message(f"m{number}", topic="ping")])
        [back] = await consumer.fetch(1, 10.0)
        took.append((time.perf_counter() - began) / 2)
        await consumer.settle([(back, DONE)])
    end(child, kill=True)
    await broker.close()
    # One way: a commit, a nudge, a fetch. Without nudges the poll would take an eighth of a second.
    assert statistics.median(took) < 0.025, statistics.median(took)


async def test_a_lost_nudge_delays_a_message_by_the_poll_at_most(path: Path) -> None:
    broker = await opened(path)
    consumer = await broker.consume(SOURCE)
    waiting = asyncio.ensure_future(consumer.fetch(1, 30.0))
    await asyncio.sleep(0.1)
    for sock in path.with_name("broker.db-live").glob("*.sock"):
        sock.unlink()  # nobody can be nudged any more
    child = start("publish", path, "p", 1)
    assert await asyncio.to_thread(line, child) == "p-0"
    began = time.monotonic()
    assert [one.message.id for one in await waiting] == ["p-0"]
    assert time.monotonic() - began < 1.0
    assert end(child) == 0
    await broker.close()


async def test_waiting_on_twenty_sources_costs_nearly_nothing(path: Path) -> None:
    child = start("idle", path, 5)
    used = float(await asyncio.to_thread(line, child))
    assert end(child) == 0
    assert used / 5 < 0.01, f"{used / 5:.2%} of a processor"


async def test_a_child_of_a_fork_opens_the_file_anew(path: Path) -> None:
    broker = await opened(path)
    consumer = await broker.consume(SOURCE)
    pid = os.fork()
    if pid == 0:  # the child leaves by `_exit` only: the parent's test must not run twice
        os._exit(_in_the_child(broker, consumer))
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    await broker.publish([message("parent")])
    taken = await consumer.fetch(10, 5.0)
    assert sorted(one.message.id for one in taken) == ["child", "parent"]
    await broker.close()
    with closing(sqlite3.connect(path)) as cx:
        assert cx.execute("pragma integrity_check").fetchone() == ("ok",)


async def test_forks_in_the_middle_of_writing_harm_neither_side(path: Path) -> None:
    broker = await opened(path)
    sent = 0
    stop = asyncio.Event()

    async def publish() -> None:
        nonlocal sent
        while not stop.is_set():
            await broker.publish([message("parent")])
            sent += 1

    publishing = [asyncio.ensure_future(publish()) for _ in range(4)]
    for _ in range(12):
        await asyncio.sleep(0.03)
        pid = os.fork()
        if pid == 0:
            os._exit(_publish_in_the_child(broker))
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    stop.set()
    await asyncio.gather(*publishing)
    lag = await broker.lag(SOURCE)
    assert lag.ready == sent + 12 * 20
    await broker.close()
    with closing(sqlite3.connect(path)) as cx:
        assert cx.execute("pragma integrity_check").fetchone() == ("ok",)


async def test_the_child_of_a_fork_holds_locks_of_its_own(path: Path) -> None:
    """What the child writes stands though its parent is killed and others come and go."""
    parent = start("fork_and_publish", path)
    child = int(await asyncio.to_thread(line, parent))
    parent.kill()
    parent.wait()
    for _ in range(20):
        other = await opened(path)
        await other.publish([message("other")])
        await other.close()
    os.kill(child, signal.SIGTERM)  # it says how many it published, and ends
    published = int(await asyncio.to_thread(line, parent))
    assert parent.stdout is not None
    parent.stdout.close()
    broker = await opened(path)
    assert (await broker.lag(SOURCE)).ready == published + 20
    assert published > 0
    await broker.close()


def _publish_in_the_child(broker: SqliteBroker) -> int:
    async def work() -> int:
        for _ in range(20):
            await broker.publish([message("child")])
        await broker.close()
        return 0

    asyncio.events._set_running_loop(None)  # the parent's loop is not ours
    try:
        return asyncio.run(work())
    except BaseException:  # noqa: BLE001 - whatever it is, the exit code says so
        return 2


def _in_the_child(broker: SqliteBroker, consumer: object) -> int:
    async def work() -> int:
        try:
            await consumer.fetch(1, 0.0)  # type: ignore[attr-defined]
        except Misuse:
            await broker.publish([message("child")])
            await broker.close()
            return 0
        return 1

    try:
        asyncio.events._set_running_loop(None)  # the parent's loop is not ours
        asyncio.set_event_loop(None)
        return asyncio.run(work())
    except BaseException:  # noqa: BLE001 - whatever it is, the exit code says so
        return 2


async def test_a_child_of_a_fork_does_not_keep_its_parents_lock(path: Path) -> None:
    broker = await opened(path)
    await broker.publish([message("m")])
    child = start("fork_and_hold", path)
    grandchild = int(await asyncio.to_thread(line, child))
    try:
        end_of_parent = time.monotonic()
        child.kill()
        child.wait()
        await lag_of(broker, ready=1, within=3.0)
        assert time.monotonic() - end_of_parent < 2.5
        os.kill(grandchild, 0)  # it lives
    finally:
        os.kill(grandchild, signal.SIGKILL)
        child.stdout.close()  # type: ignore[union-attr]
    await broker.close()
