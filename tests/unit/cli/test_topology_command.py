"""`topology diff`, `apply` and `retire` on the file of an embedded broker."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import pytest
from msgspec.structs import replace
from operator_parts import on_broker, records, run, write_module

from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.core.outcome import Dead
from callcast.ports.broker import Broker, Source
from callcast.runtime import registry
from callcast.runtime.clock import AsyncioClock

SERVICES = ("till:mail", "till:stock")


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[str]:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CALLCAST_BROKER", url)
    write_module(tmp_path, "till")
    yield url
    sys.modules.pop("till", None)


@pytest.fixture
def till(url: str) -> ModuleType:
    return importlib.import_module("till")


def states(*args: str, code: int = 0) -> dict[str, object]:
    return {str(row["name"]): row["state"] for row in records("topology", *args, code=code)}


def test_before_anything_ran_all_is_missing_and_looking_makes_nothing(
    url: str, tmp_path: Path
) -> None:
    assert states("diff", *SERVICES, code=1) == {
        "mail.remind": "missing",
        "orders.placed": "missing",
        "mail.remind/mail": "missing",
        "orders.placed/mail": "missing",
        "orders.placed/stock": "missing",
    }
    assert not list(tmp_path.glob("shop*"))


def test_apply_makes_what_is_missing_and_says_how_it_is_then(url: str) -> None:
    result = run("topology", "apply", *SERVICES)
    assert result.exit_code == 0
    assert result.stderr == "5 made\n"
    assert set(states("diff", *SERVICES).values()) == {"there"}
    again = run("topology", "apply", *SERVICES)
    assert (again.exit_code, again.stderr) == (0, "0 made\n")


def test_what_was_applied_hears_what_is_published_before_its_service_starts(
    url: str, till: ModuleType
) -> None:
    assert run("topology", "apply", *SERVICES).exit_code == 0
    asyncio.run(till.publish(url, "tea"))
    depth = {
        row["group"]: row["ready"] for row in records("queues") if row["topic"] != "mail.remind"
    }
    assert depth == {"mail": 1, "stock": 1}


def test_a_difference_names_both_sides_and_fails(url: str) -> None:
    async def make_otherwise(broker: Broker) -> None:
        await broker.ensure(["orders.placed"], [Source("orders.placed", "mail")])

    on_broker(url, make_otherwise)
    rows = {row["name"]: row for row in records("topology", "diff", "till:mail", code=1)}
    row = rows["orders.placed/mail"]
    assert row["state"] == "differs"
    assert "ordered=False" in str(row["detail"])
    assert "wanted is ordered=True" in str(row["detail"])
    assert "till.send" in str(row["needed_by"])
    assert run("topology", "diff", "till:mail", "--exit-zero").exit_code == 0


def test_apply_leaves_what_differs_and_makes_the_rest(url: str) -> None:
    async def make_otherwise(broker: Broker) -> None:
        await broker.ensure(["orders.placed"], [Source("orders.placed", "mail")])

    on_broker(url, make_otherwise)
    result = run("topology", "apply", *SERVICES)
    assert result.exit_code == 5
    assert "orders.placed/mail" in result.stderr
    assert "retire" in result.stderr
    found = states("diff", *SERVICES, code=1)
    assert found.pop("orders.placed/mail") == "differs"
    assert set(found.values()) == {"there"}


def test_what_other_programs_have_is_shown_and_is_no_difference(url: str) -> None:
    assert run("topology", "apply", *SERVICES).exit_code == 0
    assert states("diff", "till:mail") == {
        "mail.remind": "there",
        "orders.placed": "there",
        "mail.remind/mail": "there",
        "orders.placed/mail": "there",
        "orders.placed/stock": "other",
    }


def test_contracts_need_their_topic_and_casts_their_queue(url: str) -> None:
    assert states("diff", "till:PLACED", "till:REMIND", code=1) == {
        "mail.remind": "missing",
        "orders.placed": "missing",
        "mail.remind/mail": "missing",
    }


def test_a_bus_needs_what_its_services_need(url: str, tmp_path: Path) -> None:
    (tmp_path / "house.py").write_text(
        "from callcast import Bus\nfrom till import mail\nbus = Bus('memory://', services=[mail])\n"
    )
    assert states("diff", "house:bus", code=1) == states("diff", "till:mail", code=1)


def test_what_needs_nothing_of_a_broker_is_a_usage_error(url: str) -> None:
    result = run("topology", "diff", "till:done")
    assert result.exit_code == 2
    assert "till:done is a list" in result.stderr


def test_the_table_is_for_people(url: str) -> None:
    lines = run("topology", "diff", "till:stock").stdout.splitlines()
    assert lines[0].split()[:3] == ["STATE", "KIND", "NAME"]
    assert lines[1].split()[:3] == ["missing", "topic", "orders.placed"]


# retire


@pytest.fixture
def busy(url: str, till: ModuleType) -> str:
    """A broker in which stock has a dead letter, and three orders wait for both groups."""
    asyncio.run(till.publish(url, "piano-1", "tea-1", services=[till.mail, till.stock]))
    asyncio.run(till.publish(url, "tea-2", "tea-3", "tea-4"))
    return url


def test_without_yes_it_says_what_would_be_lost_and_changes_nothing(busy: str) -> None:
    result = run("topology", "retire", "stock", "-o", "json")
    assert result.exit_code == 2
    assert "4 messages of 'stock' would be lost" in result.stderr
    assert "--yes" in result.stderr
    assert '"ready": 3' in result.stdout
    assert '"dead": 1' in result.stdout
    assert [row["dead"] for row in records("queues", "--group", "stock")] == [1]


def test_a_group_ends_with_all_that_waits_for_it(busy: str) -> None:
    result = run("topology", "retire", "stock", "--yes")
    assert result.exit_code == 0
    assert "4 messages went with it" in result.stderr
    left = {(row["topic"], row["group"]): row["ready"] for row in records("queues")}
    assert left == {("orders.placed", "mail"): 3, ("mail.remind", "mail"): 0}


def test_one_topic_of_a_group_can_end(busy: str) -> None:
    assert run("topology", "retire", "mail", "--topic", "orders.placed", "--yes").exit_code == 0
    assert {(row["topic"], row["group"]) for row in records("queues")} == {
        ("orders.placed", "stock"),
        ("mail.remind", "mail"),
    }


def test_a_group_whose_workers_hold_messages_is_not_ended(busy: str) -> None:
    async def hold_and_retire() -> None:
        broker = registry.open_broker(busy, AsyncioClock())
        consumer = await broker.consume(Source("orders.placed", "stock", ordered=True))
        assert await consumer.fetch(1, 1.0)
        result = await asyncio.to_thread(run, "topology", "retire", "stock", "--yes")
        await broker.close()
        assert result.exit_code == 2
        assert "workers hold messages: 1 of orders.placed/stock" in result.stderr

    asyncio.run(hold_and_retire())
    assert len(records("queues", "--group", "stock")) == 1


def test_a_group_that_is_none_is_told_with_one_like_it(busy: str) -> None:
    result = run("topology", "retire", "stok", "--yes")
    assert result.exit_code == 2
    assert "stock, perhaps" in result.stderr
    result = run("topology", "retire", "stock", "--topic", "nothing", "--yes")
    assert "--topic orders.placed" in result.stderr
    assert "callcast queues" in run("topology", "retire", "zzz", "--yes").stderr


def test_what_a_broker_refuses_to_end_is_said(busy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(registry.open_broker(busy, AsyncioClock()))

    async def refuse(self: object, source: Source) -> None:
        raise Misuse(f"{source} has 2 workers elsewhere: stop them first")

    monkeypatch.setattr(kind, "retire", refuse)
    result = run("topology", "retire", "stock", "--yes")
    assert result.exit_code == 5
    assert "2 workers elsewhere" in result.stderr


# dlq skip


def test_skipping_a_letter_lets_its_key_go_on(url: str) -> None:
    async def park(broker: Broker) -> None:
        source = Source("moves", "ledger", ordered=True)
        await broker.ensure(["moves"], [source])
        message = Message("m-1", "test", "moves", "moves", b"1", key="a")
        await broker.publish([message, replace(message, id="m-2"), replace(message, id="m-3")])
        worker = await broker.consume(source)
        [first, *rest] = await worker.fetch(1, 1.0)
        assert not rest
        await worker.settle([(first, Dead("for the test", park=True))])
        await worker.close()

    on_broker(url, park)
    assert records("queues")[0]["delayed"] == 2
    [skipped] = records("dlq", "skip", "m-1")
    assert skipped == {"id": "m-1", "topic": "moves", "group": "ledger", "key": "a", "held": 2}
    [queue] = records("queues")
    assert (queue["ready"], queue["dead"]) == (2, 1)


def test_a_letter_that_is_none_cannot_be_skipped(busy: str) -> None:
    result = run("dlq", "skip", "m-none")
    assert result.exit_code == 2
    assert "m-none" in result.stderr
