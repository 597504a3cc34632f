"""The outbox's statements on a real SQLite database."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.runtime.clock import AsyncioClock
from callcast.sessions.sqlite import SqliteDatabase
from callcast.stores.outbox import KEY_SEQ, Outbox


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(str(tmp_path / "shop.db"), clock=AsyncioClock())
    yield database
    await database.close()


@pytest.fixture
async def outbox(database: SqliteDatabase) -> Outbox:
    outbox = Outbox("sqlite", "orders")
    async with database.begin() as session:
        await outbox.create(session)
    return outbox


def message(id_: str, key: str | None = None, topic: str = "orders.placed") -> Message:
    return Message(id_, "orders", topic, topic, id_.encode(), key=key, headers={"own": "1"})


async def add(database: SqliteDatabase, outbox: Outbox, *messages: Message) -> None:
    async with database.begin() as session:
        await outbox.add(session, messages)


async def due(database: SqliteDatabase, outbox: Outbox) -> dict[str, int]:
    """Ids of the messages that may leave now, and their rows."""
    return {e.message.id: e.id for e in await outbox.due(database, 100, retried=100)}


async def take(database: SqliteDatabase, outbox: Outbox, lease: float = 60.0) -> int:
    async with database.begin() as session:
        epoch = await outbox.take(session, "me", lease=lease)
    assert epoch is not None
    return epoch


async def mark(database: SqliteDatabase, outbox: Outbox, epoch: int, *ids: int) -> int:
    async with database.begin() as session:
        return await outbox.mark(session, epoch, ids)


async def test_a_message_comes_back_as_it_was_written(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    written = Message(
        "1", "orders", "a", "a.v2", b"\x00\xff", time=3.5, traceparent="00-1", expires=9.0,
        deliver_at=8.0, unheard=True, group="only",
    )  # fmt: skip
    await add(database, outbox, written)
    entries = await outbox.due(database, 10, retried=10)
    assert [(e.attempts, e.message) for e in entries] == [(0, written)]


async def test_only_the_oldest_unsent_row_of_a_key_may_leave(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    await add(database, outbox, message("a1", "a"), message("a2", "a"), message("b1", "b"))
    await add(database, outbox, message("a3", "a"), message("-"), message("a", "a", "other"))
    epoch = await take(database, outbox)

    rows = await due(database, outbox)
    assert set(rows) == {"a1", "b1", "-", "a"}

    assert await mark(database, outbox, epoch, rows["a1"], rows["-"]) == 2
    assert set(await due(database, outbox)) == {"a2", "b1", "a"}


async def test_messages_of_a_key_are_numbered_without_gaps_whatever_is_sent_twice(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    await add(database, outbox, message("a1", "a"), message("b1", "b"))
    await add(database, outbox, message("a1", "a"))
    await add(database, outbox, message("a2", "a"), message("-"), message("-"))

    rows = await database.read("select key, key_seq from callcast_outbox where key is not null")
    assert sorted(rows) == [("a", 1), ("a", 2), ("b", 1)]
    entries = await outbox.due(database, 100, retried=100)
    assert {e.message.id: e.message.headers for e in entries} == {
        "a1": {"own": "1", KEY_SEQ: "1"},
        "b1": {"own": "1", KEY_SEQ: "1"},
        "-": {"own": "1"},
    }


async def test_an_id_is_for_one_message_for_ever(database: SqliteDatabase, outbox: Outbox) -> None:
    await add(database, outbox, message("1"))
    with pytest.raises(Misuse, match="'1' is in the outbox already"):
        await add(database, outbox, message("1", topic="other"))


async def test_a_row_that_is_put_off_waits_and_its_key_waits_with_it(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    await add(database, outbox, message("a1", "a"), message("a2", "a"), message("b1", "b"))
    rows = await due(database, outbox)
    async with database.begin() as session:
        await outbox.put_off(session, rows["a1"], delay=60.0, error="no route")
    await add(database, outbox, message("a3", "a"))
    assert set(await due(database, outbox)) == {"b1"}
    (pending,) = await outbox.pending(database)
    assert (pending.ready, pending.delayed, pending.parked) == (1, 3, 0)

    async with database.begin() as session:
        await outbox.put_off(session, rows["a1"], delay=-1.0, error="no route")
    entries = await outbox.due(database, 100, retried=100)
    assert [(e.message.id, e.attempts) for e in entries] == [("a1", 2), ("b1", 0)]
    assert await database.read("select last_error from callcast_outbox where attempts > 0") == [
        ("no route",)
    ]


async def test_rows_tried_before_leave_room_for_fresh_ones(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    await add(database, outbox, *(message(str(n)) for n in range(20)))
    async with database.begin() as session:
        for row in range(1, 11):
            await outbox.put_off(session, row, delay=-1.0, error="")
    entries = await outbox.due(database, 8, retried=2)
    assert [e.attempts for e in entries] == [1, 1, 0, 0, 0, 0, 0, 0]


async def test_rows_that_are_out_already_are_left_out(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    await add(database, outbox, *(message(str(n)) for n in range(8)))
    async with database.begin() as session:
        for row in (1, 2, 3):
            await outbox.put_off(session, row, delay=-1.0, error="")
    entries = await outbox.due(database, 3, retried=1, hidden={1, 4, 5})
    assert [e.id for e in entries] == [2, 6, 7]


async def test_a_parked_row_parks_its_key_alone_until_it_is_unparked(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    await add(database, outbox, message("a1", "a"), message("a2", "a"), message("-"))
    rows = await due(database, outbox)
    async with database.begin() as session:
        await outbox.park(session, rows["a1"], "too large")
    await add(database, outbox, message("a3", "a"))
    assert set(await due(database, outbox)) == {"-"}
    (pending,) = await outbox.pending(database)
    assert (pending.bus, pending.ready, pending.delayed, pending.parked) == ("orders", 1, 2, 1)

    async with database.begin() as session:
        assert await outbox.unpark(session) == 1
    epoch = await take(database, outbox)
    assert set(await due(database, outbox)) == {"-", "a1"}
    await mark(database, outbox, epoch, rows["a1"])
    assert set(await due(database, outbox)) == {"-", "a2"}


async def test_a_parked_row_is_listed_with_what_waits_behind_it(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    assert await outbox.exists(database)
    await add(database, outbox, message("a1", "a"), message("a2", "a"), message("-"))
    rows = await due(database, outbox)
    async with database.begin() as session:
        await outbox.park(session, rows["a1"], "too large")
        await outbox.park(session, rows["-"], "forbidden")
    second, first = await outbox.parked(database)
    assert (first.bus, first.id, first.key, first.error) == ("orders", "a1", "a", "too large")
    assert (first.behind, first.attempts, first.message.body) == (1, 1, b"a1")
    assert (second.id, second.key, second.behind) == ("-", None, 0)


async def test_a_skipped_row_is_gone_and_its_key_goes_on(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    await add(database, outbox, message("a1", "a"), message("a2", "a"), message("-"))
    rows = await due(database, outbox)
    async with database.begin() as session:
        assert not await outbox.skip(session, "a1")  # not parked: it may still leave
        await outbox.park(session, rows["a1"], "too large")
        await outbox.park(session, rows["-"], "forbidden")
        assert not await Outbox("sqlite", "others").skip(session, "a1")
        assert await outbox.skip(session, "a1")
        assert await outbox.skip(session, "-")
        assert not await outbox.skip(session, "a1")
    assert set(await due(database, outbox)) == {"a2"}
    assert await outbox.parked(database) == []


async def test_a_lane_has_one_owner_and_a_stale_owner_marks_nothing(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    await add(database, outbox, message("1"))
    first = await take(database, outbox, lease=60.0)
    async with database.begin() as session:
        assert await outbox.take(session, "other", lease=60.0) is None
        assert await outbox.renew(session, first, -1.0)
    assert (await outbox.lane(database)).left < 0

    second = await take(database, outbox)
    assert second == first + 1
    lane = await outbox.lane(database)
    assert lane.epoch == second
    assert 0 < lane.left <= 60.0
    assert await mark(database, outbox, first, 1) == 0
    async with database.begin() as session:
        assert not await outbox.is_mine(session, first)
        assert not await outbox.renew(session, first, 60.0)
        assert await outbox.is_mine(session, second)
    assert set(await due(database, outbox)) == {"1"}
    assert await mark(database, outbox, second, 1) == 1
    assert await mark(database, outbox, second, 1) == 0


async def test_a_lane_whose_owner_is_dead_is_taken_before_its_lease_ends(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    await take(database, outbox)
    assert (await outbox.lane(database)).owner == "me"
    async with database.begin() as session:
        assert await outbox.take(session, "other", lease=60.0, former="somebody") is None
        assert await outbox.take(session, "other", lease=60.0, former="me") == 2


async def test_a_bus_has_its_own_rows_lane_and_ids(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    other = Outbox("sqlite", "billing")
    async with database.begin() as session:
        await other.create(session)
        assert await outbox.buses(session) == ["billing", "orders"]
    await add(database, outbox, message("1", "a"))
    await add(database, other, message("1", "a"), message("2", "a"))
    assert set(await due(database, outbox)) == {"1"}
    epoch = await take(database, other)
    rows = await due(database, other)
    await mark(database, other, epoch, *rows.values())
    assert set(await due(database, outbox)) == {"1"}
    assert set(await due(database, other)) == {"2"}
    assert [(p.bus, p.ready) for p in await other.pending(database)] == [
        ("billing", 1),
        ("orders", 1),
    ]


async def test_cleaning_deletes_old_published_rows_in_batches_and_never_an_unsent_one(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    await add(database, outbox, *(message(str(n)) for n in range(6)))
    epoch = await take(database, outbox)
    await mark(database, outbox, epoch, 1, 2, 3)
    async with database.begin() as session:
        await outbox.park(session, 4, "too large")
        assert await outbox.clean(session, retention=3600.0, limit=10) == 0
        await session.execute("update callcast_outbox set published_at = published_at - 7200")
        await session.execute("update callcast_outbox set created_at = created_at - 7200")
        assert await outbox.clean(session, retention=3600.0, limit=2) == 2
        assert await outbox.clean(session, retention=3600.0, limit=2) == 1
        assert await outbox.clean(session, retention=3600.0, limit=2) == 0
    left = await database.read("select message_id, state from callcast_outbox order by id")
    assert left == [("3", 2), ("4", 0), ("5", 0)]
    (pending,) = await outbox.pending(database)
    assert 7200 <= pending.oldest < 7260


async def test_times_are_the_databases(database: SqliteDatabase, outbox: Outbox) -> None:
    await add(database, outbox, message("1"))
    (row,) = await database.read("select created_at - strftime('%s', 'now') from callcast_outbox")
    assert abs(float(row[0] or 0)) < 2.0


async def test_the_fetch_looks_at_heads_alone_however_many_wait_behind_them(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    plan = await database.read(f"explain query plan {outbox._texts.due_fresh}", "orders", 0, 10)
    assert [row[3] for row in plan] == [
        (
            "SEARCH callcast_outbox USING INDEX callcast_outbox_due"
            " (bus=? AND lane=? AND next_attempt_at=?)"
        )
    ]
    plan = await database.read(f"explain query plan {outbox._texts.due_again}", "orders", 0, 10)
    assert plan[0][3] == (
        "SEARCH callcast_outbox USING INDEX callcast_outbox_due"
        " (bus=? AND lane=? AND next_attempt_at>? AND next_attempt_at<?)"
    )


async def test_creating_again_changes_nothing_and_newer_tables_are_refused(
    database: SqliteDatabase, outbox: Outbox
) -> None:
    await add(database, outbox, message("1"))
    async with database.begin() as session:
        await outbox.create(session)
    assert set(await due(database, outbox)) == {"1"}

    async with database.begin() as session:
        await session.execute("update callcast_schema set version = 99 where store = 'outbox'")
    with pytest.raises(Misuse, match="version 99"):
        async with database.begin() as session:
            await outbox.create(session)


def test_a_dialect_without_sql_is_refused() -> None:
    with pytest.raises(Misuse, match="there is sqlite"):
        Outbox("oracle", "orders")


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_fails_every_key_leaves_in_its_order(
    database: SqliteDatabase, outbox: Outbox, seed: int
) -> None:
    """A random run: heads only, one after the other, is enough for the order of keys."""
    dice = random.Random(seed)
    keys = ("a", "b", None)
    written: dict[str, list[str]] = {}
    sent: dict[str, list[str]] = {}
    epoch = await take(database, outbox)
    for step in range(60):
        if step < 40:
            key = dice.choice(keys)
            name = f"{key}{step}"
            written.setdefault(str(key), []).append(name)
            await add(database, outbox, message(name, key))
        for entry in await outbox.due(database, 100, retried=100):
            fate = dice.random()
            async with database.begin() as session:
                if fate < 0.3 and step < 50:
                    await outbox.put_off(session, entry.id, delay=-0.5, error="later")
                elif fate < 0.4 and step < 50:
                    await outbox.park(session, entry.id, "parked")
                else:
                    assert await outbox.mark(session, epoch, [entry.id]) == 1
                    sent.setdefault(str(entry.message.key), []).append(entry.message.id)
                await outbox.unpark(session)
    for _ in range(40):
        for entry in await outbox.due(database, 100, retried=100):
            async with database.begin() as session:
                await outbox.mark(session, epoch, [entry.id])
            sent.setdefault(str(entry.message.key), []).append(entry.message.id)
    assert sent["a"] == written["a"]
    assert sent["b"] == written["b"]
    assert sorted(sent["None"]) == sorted(written["None"])
