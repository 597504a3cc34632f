"""A record that cannot be written never breaks the program; it is told once, and counted."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from record_kit import PLACED, ran

from callcast import Bus, Misuse
from callcast.core.errors import Unavailable
from callcast.core.recorded import RecordedEdge, RecordedSpan
from callcast.runtime.recording import record_of
from callcast.runtime.settings import Table
from callcast.telemetry.record.book import COARSE, FINE, Book, Entry
from callcast.telemetry.record.file import COARSE_KEPT, RecordFile, read_edges, read_spans
from callcast.telemetry.record.keeper import TIDY_EVERY, UNWRITTEN_MAX, Keeper
from callcast.telemetry.record.reading import edges
from callcast.telemetry.record.ring import Ring

CHILD = """
import asyncio, sys
sys.path.insert(0, {kit!r})
from record_kit import PLACED, shop
from callcast import Bus
async def main():
    async with Bus("sqlite:///" + sys.argv[1], name="till", services=shop()) as bus:
        for number in range(10_000):
            await bus.publish(PLACED, "tea")
            print(number, flush=True)
            await asyncio.sleep(0.02)
asyncio.run(main())
"""


async def one_order(bus: Bus) -> None:
    await bus.publish(PLACED, "tea")


def a_directory(path: Path) -> None:
    path.mkdir()


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database at all, whatever its name says" * 100)


def a_link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def of_another_version(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("pragma user_version = 99")
    connection.close()


@pytest.mark.parametrize("spoil", [a_directory, garbage, a_link, of_another_version])
def test_a_file_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: object
) -> None:
    assert callable(spoil)
    spoil(tmp_path / "shop.db.record")
    with caplog.at_level(logging.WARNING, "callcast"):
        ran(tmp_path, one_order)
    told = [each for each in caplog.records if "cannot be written" in each.getMessage()]
    assert len(told) == 1
    assert "CALLCAST_RECORD=off" in told[0].getMessage()


def test_what_could_not_be_written_is_written_when_the_lock_is_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "r")
    book, ring = Book(), Ring()
    keeper = Keeper(RecordFile(path, lock_wait=0.05), "1", book=book, ring=ring)
    line = book.line(("a", "b", "c", "call", "caller"))
    line.took.append(0.1)
    keeper.write(100.0)
    keeper.write(100.0)
    line.took.append(0.1)
    ring.keep(span("s-1"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    keeper.write(101.0)
    keeper.write(101.0)
    assert keeper.failures == 2
    other.rollback()
    other.close()
    keeper.finish(102.0)
    ((_, entry),) = list(read_edges(path, FINE, 0.0))
    assert entry.edge.count == 2
    assert [each.span_id for each in read_spans(path)] == ["s-1"]


def test_what_waits_for_a_file_that_never_comes_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    book = Book()
    keeper = Keeper(RecordFile(str(tmp_path / "r")), "1", book=book, ring=Ring())
    line = book.line(("a", "b", "c", "call", "caller"))
    for slot in range(UNWRITTEN_MAX + 50):
        line.took.append(0.1)
        keeper.write(slot * FINE)
    assert keeper.failures > UNWRITTEN_MAX
    assert len(keeper._unwritten) <= UNWRITTEN_MAX


def test_old_slots_go(tmp_path: Path) -> None:
    path = str(tmp_path / "r")
    book = Book()
    keeper = Keeper(RecordFile(path), "1", book=book, ring=Ring())
    line = book.line(("a", "b", "c", "call", "caller"))
    late = COARSE_KEPT + 10 * COARSE
    for moment in [0.0, *[late + number for number in range(TIDY_EVERY + 2)]]:
        line.took.append(0.1)
        keeper.write(moment)
    keeper.finish(late + TIDY_EVERY + 2)
    assert all(entry.start > 0 for _, entry in read_edges(path, COARSE, 0.0))
    assert all(entry.start > 0 for _, entry in read_edges(path, FINE, 0.0))


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = ran(tmp_path, one_order)
    assert Path(path).stat().st_mode & 0o077 == 0


def test_a_killed_program_loses_no_more_than_the_last_second(tmp_path: Path) -> None:
    kit = str(Path(__file__).parent)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(kit=kit), str(tmp_path / "shop.db")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    path = str(tmp_path / "shop.db.record")
    sent = 0
    for line in child.stdout:
        sent = int(line) + 1
        if sent >= 60 and known(path):
            break
    os.kill(child.pid, signal.SIGKILL)
    child.stdout.close()
    child.wait()
    assert 0 < known(path) <= sent + 1


def known(path: str) -> int:
    if not Path(path).exists():
        return 0
    try:
        found = edges(path)
    except Unavailable:  # its schema is just being made
        return 0
    return sum(edge.count for edge in found if edge.side == "caller" and edge.name == PLACED.name)


@pytest.mark.parametrize("spoil", [garbage, of_another_version])
def test_reading_what_is_no_record_says_so(tmp_path: Path, spoil: object) -> None:
    assert callable(spoil)
    spoil(tmp_path / "r")
    with pytest.raises(Unavailable, match="record"):
        edges(str(tmp_path / "r"))


def test_reading_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="there is no record"):
        edges(str(tmp_path / "r"))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("broker", "said", "path"),
    [
        ("sqlite:///shop.db", None, "shop.db.record"),
        ("sqlite:///shop.db?retain=3", "on", "shop.db.record"),
        ("sqlite:///shop.db", "off", None),
        ("memory://", None, None),
        ("amqp://host", None, None),
        ("amqp://host", "ON", "callcast.record"),
        ("amqp://host", "here/r", "here/r"),
    ],
)
def test_where_a_record_is_kept(broker: str, said: str | None, path: str | None) -> None:
    found = record_of(broker, Table(record=said))
    assert (found and found.path) == path


def test_how_many_spans_are_kept_is_one_of_two_words() -> None:
    found = record_of("sqlite:///shop.db", Table(record_spans="all"))
    assert found is not None
    assert found.keeps_all
    with pytest.raises(Misuse, match="record_spans"):
        record_of("sqlite:///shop.db", Table(record_spans="many"))


def test_stopping_twice_is_stopping_once(tmp_path: Path) -> None:
    async def act(bus: Bus) -> None:
        await one_order(bus)
        await bus.idle()
        observer = bus._engine._ports.observer
        await observer.stop()  # type: ignore[attr-defined]
        await observer.stop()  # type: ignore[attr-defined]

    assert known(ran(tmp_path, act)) == 1


def test_an_entry_is_read_as_it_was_written(tmp_path: Path) -> None:
    edge = RecordedEdge(caller="a", callee="b", name="c", verb="call", side="caller", count=3)
    edge.latency.record(0.25, 3)
    file = RecordFile(str(tmp_path / "r"))
    file.write("1", [Entry(100.0, FINE, 101.0, 102.0, edge)], [])
    file.close()
    file.close()
    ((process, read),) = list(read_edges(str(tmp_path / "r"), FINE, 0.0))
    assert process == "1"
    assert (read.since, read.until, read.edge.count) == (101.0, 102.0, 3)
    assert read.edge.latency.buckets == edge.latency.buckets
    assert read.edge.latency.most == 0.25


def span(id_: str) -> RecordedSpan:
    return RecordedSpan(trace_id="t", span_id=id_, service="s", name="n", start=0.0, took=0.0)
