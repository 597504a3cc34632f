"""Dead letters in the file: which of them take each other's place, also in a file of long ago."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlite_bench import ids
from sqlite_child import SOURCE, broker_at, message

from callcast.brokers.sqlite import SqliteBroker
from callcast.brokers.sqlite.schema import MAJOR, MINOR
from callcast.core.message import Message
from callcast.core.outcome import DONE, Dead, Later
from callcast.ports.broker import Part

DEAD = Dead("for the test")
PARKED = Dead("for the test", park=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


async def die(broker: SqliteBroker, sent: Message, verdict: Dead = DEAD) -> None:
    await broker.publish([sent])
    worker = await broker.consume(SOURCE)
    await worker.settle([(each, verdict) for each in await worker.fetch(10, 0.0)])
    await worker.close()


async def letters(broker: SqliteBroker) -> list[Message]:
    return [each.message for each in await broker.browse(SOURCE, part=Part.DEAD, limit=10)]


async def test_one_that_was_put_off_first_takes_the_place_of_its_letter_too(path: Path) -> None:
    broker = broker_at(path)
    await broker.ensure([], [SOURCE])
    await die(broker, message("a"))
    await broker.publish([message("a")])
    worker = await broker.consume(SOURCE)
    await worker.settle([(each, Later(0.0)) for each in await worker.fetch(1, 0.0)])
    [again] = await worker.fetch(1, 1.0)
    assert again.round == 1
    await worker.settle([(again, DEAD)])
    assert len(await letters(broker)) == (await broker.lag(SOURCE)).dead == 1
    await broker.close()


async def test_another_message_under_the_same_id_keeps_its_letter(path: Path) -> None:
    """Somebody gave an id twice: neither body may be lost for it."""
    broker = broker_at(path)
    await broker.ensure([], [SOURCE])
    await die(broker, message("a"))
    await die(broker, replace(message("a"), body=b"another"))
    await die(broker, replace(message("a"), source="somebody else"))
    assert len(await letters(broker)) == 3
    await broker.close()


async def test_one_that_is_dead_again_after_a_redrive_is_one_letter(path: Path) -> None:
    broker = broker_at(path)
    await broker.ensure([], [SOURCE])
    await die(broker, message("a"))
    for _ in range(3):
        redriver = await broker.consume(SOURCE, part=Part.DEAD)
        [letter] = await redriver.fetch(10, 0.0)
        await broker.publish([replace(letter.message, group=SOURCE.group)])
        await redriver.settle([(letter, DONE)])
        await redriver.close()
        worker = await broker.consume(SOURCE)
        await worker.settle([(each, DEAD) for each in await worker.fetch(1, 0.0)])
        await worker.close()
        assert len(await letters(broker)) == 1
    await broker.close()


async def test_a_skipped_letter_gives_way_to_the_one_that_holds_the_key_again(path: Path) -> None:
    source = replace(SOURCE, ordered=True)
    broker = broker_at(path)
    await broker.ensure([], [source])
    for _ in range(2):
        await die(broker, message("a", key="k"), PARKED)
        await broker.publish([message("b", key="k")])
        worker = await broker.consume(source)
        assert not await worker.fetch(1, 0.0)  # the key is held
        assert len(await letters(broker)) == 1
        await broker.unpark(source, "k")
        await worker.settle([(each, DONE) for each in await worker.fetch(1, 0.0)])
        await worker.close()
    await broker.close()


async def test_a_file_of_the_first_layout_is_brought_up_to_date(path: Path) -> None:
    broker = broker_at(path)
    await broker.ensure([], [SOURCE])
    await die(broker, message("old"))
    await broker.close()
    with closing(sqlite3.connect(path)) as cx:  # as the first layout had it
        cx.executescript(
            "drop index held_letter; alter table held drop column sender;"
            " alter table held drop column message_id;"
            " create index held_letter on held(source) where state in (2, 3);"
            f" pragma user_version = {MAJOR * 1000};"
        )
    broker = broker_at(path)
    assert [each.id for each in await letters(broker)] == ["old"]
    for _ in range(2):
        await die(broker, message("new"))
    assert [each.id for each in await letters(broker)] == ["old", "new"]
    redriver = await broker.consume(SOURCE, part=Part.DEAD)
    taken = await redriver.fetch(10, 0.0)
    await redriver.settle([(each, DONE) for each in taken])
    assert ids(taken) == ["old", "new"]
    await broker.close()
    with closing(sqlite3.connect(path)) as cx:
        assert cx.execute("pragma user_version").fetchone() == (MAJOR * 1000 + MINOR,)
