"""`queues`, `dlq` and `backup` on the file of an embedded broker."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from operator_parts import records, run

from callcast.core.contract import Event
from callcast.core.errors import NotSent, Refused, Unanswered, Unavailable, Unpublished
from callcast.core.message import Message
from callcast.core.outcome import DEAD_REASON, noted
from callcast.ports.broker import Broker, Browses, Glimpse, Source
from callcast.runtime import registry
from callcast.runtime.bus import Bus
from callcast.runtime.clock import AsyncioClock
from callcast.runtime.service import Service
from callcast.runtime.transaction import Transaction
from callcast.stores.inbox import payload_hash

PLACED = Event("orders.placed", str, key=lambda order: order)


def shop() -> tuple[Service, Service]:
    stock, billing = Service("stock"), Service("billing")

    @stock.on(PLACED)
    async def pack(order: str, tx: Transaction) -> None:
        await tx.fetch("select 1")
        if order != "fits":
            raise Refused(f"no box fits {order!r}")

    @billing.on(PLACED)
    async def bill(order: str) -> None: ...

    return stock, billing


def pack_what_is_there(url: str) -> None:
    async def work() -> None:
        async with Bus(url, services=shop(), name="shop") as bus:
            await bus.idle()

    asyncio.run(work())


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A broker in which billing packs what stock could not: three dead letters of one group."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLCAST_BROKER", url)
    stock, billing = shop()

    async def work() -> None:
        async with Bus(url, services=[stock, billing], name="shop") as bus:
            for order in ("piano", "harp", "fits", "tuba"):
                await bus.publish(PLACED, order, id=f"m-{order}")
            await bus.idle()

    asyncio.run(work())
    return url


def test_queues_tell_what_is_dead_per_group(url: str) -> None:
    found = {record["group"]: record for record in records("queues")}
    assert found["stock"]["dead"] == 3
    assert found["billing"]["dead"] == 0
    assert found["stock"]["ready"] == found["stock"]["in_flight"] == found["stock"]["delayed"] == 0
    assert float(str(found["stock"]["oldest"])) > 0
    assert [r["group"] for r in records("queues", "--group", "billing")] == ["billing"]


def test_queues_are_a_table_for_people(url: str) -> None:
    lines = run("queues").stdout.splitlines()
    assert lines[0].split() == [
        "TOPIC",
        "GROUP",
        "READY",
        "IN",
        "FLIGHT",
        "DELAYED",
        "DEAD",
        "OLDEST",
        "PAUSED",
    ]
    assert len(lines) == 3


def test_queues_can_be_watched(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    async def sleep(_self: AsyncioClock, delay: float) -> None:
        looks.append(delay)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(AsyncioClock, "sleep", sleep)
    result = run("queues", "--watch")
    assert result.exit_code == 130
    assert result.stdout.count("TOPIC") == 2
    assert looks == [2.0, 2.0]


def test_dead_letters_are_listed_oldest_first_and_filtered(url: str) -> None:
    assert [r["id"] for r in records("dlq", "ls")] == ["m-piano", "m-harp", "m-tuba"]
    assert [r["id"] for r in records("dlq", "ls", "--filter", "reason~harp")] == ["m-harp"]
    assert records("dlq", "ls", "--query", "group=billing") == []
    assert records("dlq", "ls", "--filter", "key=tuba", "--filter", "reason~harp") == []


def test_a_dead_letter_is_shown_with_its_headers_but_its_body_only_when_asked(url: str) -> None:
    shown = json.loads(run("dlq", "show", "m-harp", "-o", "json").stdout)
    assert shown["error_message"] == "no box fits 'harp'"
    assert shown["headers"]["callcast-group"] == "stock"
    assert "body" not in shown
    assert (
        json.loads(run("dlq", "show", "m-harp", "--body", "-o", "json").stdout)["body"] == '"harp"'
    )
    text = run("dlq", "show", "m-harp").stdout
    assert "Traceback" in text
    assert "no box fits" in text


def test_a_dead_letter_that_is_none_is_said(url: str) -> None:
    result = run("dlq", "show", "m-none")
    assert result.exit_code == 2
    assert "there is no dead letter m-none" in result.stderr


def test_a_redrive_of_none_shows_no_empty_table(url: str) -> None:
    result = run("dlq", "redrive", "m-none")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "there is no dead letter m-none" in result.stderr


def test_a_redrive_of_one_goes_to_the_group_that_failed_and_counts(url: str) -> None:
    redriven = records("dlq", "redrive", "m-harp")
    assert redriven == [{"id": "m-harp", "topic": "orders.placed", "group": "stock", "error": ""}]
    depth = {r["group"]: (r["ready"], r["dead"]) for r in records("queues")}
    assert depth == {"stock": (1, 2), "billing": (0, 0)}


def test_a_dry_run_changes_nothing(url: str) -> None:
    assert len(records("dlq", "redrive", "--all", "--dry-run")) == 3
    assert records("queues", "--group", "stock")[0]["dead"] == 3


def test_all_are_redriven_at_a_rate(url: str) -> None:
    result = run("dlq", "redrive", "--all", "--rate", "50", "-o", "json")
    assert len(json.loads(result.stdout)) == 3
    assert result.stderr == "3 redriven, 0 failed\n"
    assert records("dlq", "ls") == []


@pytest.mark.parametrize("args", [[], ["--all", "--filter", "id=x"], ["m-harp", "--all"]])
def test_a_redrive_must_say_clearly_what_it_is_about(url: str, args: Sequence[str]) -> None:
    result = run("dlq", "redrive", *args)
    assert result.exit_code == 2
    assert "say which dead letters" in result.stderr
    assert records("queues", "--group", "stock")[0]["dead"] == 3


def test_a_redrive_that_succeeds_in_part_exits_5(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(registry.open_broker(url, AsyncioClock()))
    publish = kind.publish

    async def refuse_harp(self: Broker, messages: Sequence[Message]) -> None:
        if messages[0].id == "m-harp":
            raise Unpublished([NotSent("no room", id="m-harp")])
        await publish(self, messages)

    monkeypatch.setattr(kind, "publish", refuse_harp)
    result = run("dlq", "redrive", "--all")
    assert result.exit_code == 5
    assert "2 redriven, 1 failed" in result.stderr
    assert "m-harp" in result.stderr
    assert [r["id"] for r in records("dlq", "ls")] == ["m-harp"]


@pytest.mark.parametrize(("good", "code", "left"), [(1, 5, "5 dead letters"), (0, 3, "6 dead")])
def test_a_redrive_stops_when_the_broker_fails_and_says_what_is_left(
    url: str, monkeypatch: pytest.MonkeyPatch, good: int, code: int, left: str
) -> None:
    async def more() -> None:
        async with Bus(url, name="shop") as bus:
            for order in ("bed", "sofa", "desk"):
                await bus.publish(PLACED, order, id=f"m-{order}")

    asyncio.run(more())
    pack_what_is_there(url)
    kind = type(registry.open_broker(url, AsyncioClock()))
    publish = kind.publish
    asked: list[Message] = []

    async def fail(self: Broker, messages: Sequence[Message]) -> None:
        asked.extend(messages)
        if len(asked) <= good:
            await publish(self, messages)
            return
        raise Unpublished([Unanswered("no answer within 5 s", id=messages[0].id)])

    monkeypatch.setattr(kind, "publish", fail)
    result = run("dlq", "redrive", "--all")
    assert result.exit_code == code
    assert f"{good} redriven, 3 failed" in result.stderr
    assert "CircuitOpen: the circuit of the broker is open" in result.stderr
    assert left in result.stderr
    assert len(asked) == good + 3


def test_what_is_left_may_be_unknown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(registry.open_broker(url, AsyncioClock()))

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("the disk is gone")

    monkeypatch.setattr(kind, "publish", away)
    monkeypatch.setattr(kind, "browse", away)
    result = run("dlq", "redrive", "--all")
    assert result.exit_code == 3
    assert "an unknown number of dead letters are left" in result.stderr


def test_ids_that_are_not_there_are_told_beside_those_that_were(url: str) -> None:
    assert run("dlq", "redrive", "m-harp", "m-none").exit_code == 5
    result = run("dlq", "redrive", "m-none")
    assert result.exit_code == 2
    assert "m-none" in result.stderr


def handled(path: Path, id_: str, body: bytes) -> None:
    """Note in the inbox of stock that it has handled this message."""
    payload = payload_hash("orders.placed", body)
    with closing(sqlite3.connect(path / "shop.stock.db")) as database, database:
        database.execute(
            "insert into callcast_inbox (consumer, source, message_id, payload_hash)"
            " values ('stock', 'shop', ?, ?)",
            (id_, payload),
        )


def test_a_letter_whose_effect_is_there_is_superseded(url: str, tmp_path: Path) -> None:
    assert {r["id"]: r["superseded"] for r in records("dlq", "ls")} == {
        "m-piano": False,
        "m-harp": False,
        "m-tuba": False,
    }
    handled(tmp_path, "m-harp", b'"harp"')
    superseded = {r["id"]: r["superseded"] for r in records("dlq", "ls")}
    assert superseded == {"m-piano": False, "m-harp": True, "m-tuba": False}


def test_a_superseded_letter_counts_no_more(url: str, tmp_path: Path) -> None:
    handled(tmp_path, "m-harp", b'"harp"')
    handled(tmp_path, "m-tuba", b'"tuba"')
    assert records("queues", "--group", "stock")[0]["dead"] == 1
    assert "1 in orders.placed/stock" in run("doctor").stdout
    handled(tmp_path, "m-piano", b'"piano"')
    assert records("queues", "--group", "stock")[0]["dead"] == 0
    assert "dead letters" not in run("doctor").stdout


def test_a_letter_whose_id_was_used_for_another_payload_still_counts(
    url: str, tmp_path: Path
) -> None:
    handled(tmp_path, "m-harp", b'"flute"')
    assert not any(r["superseded"] for r in records("dlq", "ls"))
    assert records("queues", "--group", "stock")[0]["dead"] == 3


def test_of_copies_the_latest_alone_is_listed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the broker keeps a letter for each time that a message died."""
    kind = type(registry.open_broker(url, AsyncioClock()))
    traits = replace(registry.open_broker(url, AsyncioClock()).traits, collapses_letters=False)
    browse = kind.browse

    async def twice(self: Browses, source: Source, **asked: Any) -> list[Glimpse]:
        found = await browse(self, source, **asked)
        later = [replace(g, message=noted(g.message, {DEAD_REASON: "again"})) for g in found]
        return [*found, *later]

    monkeypatch.setattr(kind, "browse", twice)
    monkeypatch.setattr(kind, "traits", traits)
    assert [(r["id"], r["reason"]) for r in records("dlq", "ls")] == [
        ("m-piano", "again"),
        ("m-harp", "again"),
        ("m-tuba", "again"),
    ]


def test_whether_a_letter_is_superseded_is_unknown_without_its_database(
    url: str, tmp_path: Path
) -> None:
    for path in tmp_path.glob("shop.stock.db*"):
        path.unlink()
    assert {r["superseded"] for r in records("dlq", "ls")} == {None}


def test_a_backup_is_a_broker_with_the_same_messages(url: str, tmp_path: Path) -> None:
    assert run("backup", "shop.db", "copy.db").exit_code == 0
    copied = records("dlq", "ls", "--broker", f"sqlite:///{tmp_path / 'copy.db'}")
    assert [r["id"] for r in copied] == ["m-piano", "m-harp", "m-tuba"]


def test_a_backup_does_not_overwrite(url: str, tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("precious")
    result = run("backup", "shop.db", "copy.db")
    assert result.exit_code == 2
    assert (tmp_path / "copy.db").read_text() == "precious"


def test_a_backup_into_a_folder_that_is_not_there_says_so(url: str, tmp_path: Path) -> None:
    result = run("backup", "shop.db", "backups/shop.db")
    assert result.exit_code == 2
    assert "there is no folder backups for shop.db: make it first" in result.stderr


def test_a_database_of_a_service_can_be_copied_too(url: str, tmp_path: Path) -> None:
    assert run("backup", "shop.stock.db", "stock.db").exit_code == 0
    with sqlite3.connect(tmp_path / "stock.db") as copy:
        assert copy.execute("select count(*) from callcast_inbox").fetchone() == (1,)
    copy.close()


@pytest.mark.parametrize(
    ("environment", "args", "code", "text"),
    [
        ({}, [], 2, "no broker is named"),
        ({"CALLCAST_BROKER": "memory://"}, [], 2, "lives inside its own process"),
        ({}, ["--broker", "sqlite:///none.db"], 3, "there is no broker file none.db"),
        ({}, ["--broker", "carrier-pigeon://"], 2, "carrier-pigeon"),
        ({"CALLCAST_SLOTS": "many"}, ["--broker", "sqlite:///none.db"], 3, "no broker file"),
    ],
)
def test_a_broker_that_cannot_be_looked_at_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: Mapping[str, str],
    args: Sequence[str],
    code: int,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CALLCAST_BROKER", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run("queues", *args)
    assert result.exit_code == code
    assert text in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []  # looking makes nothing
