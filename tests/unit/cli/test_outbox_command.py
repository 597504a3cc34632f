"""`callcast outbox`: what is parked in the outbox of a service, and how it goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from callcast import Bus, Event, Service, Settings
from callcast.cli.app import main

PLACED = Event("orders.placed", str, key=lambda order: order[0])
LARGE = "a" * 3_000


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["outbox", *args])


def records(*args: str) -> list[dict[str, object]]:
    result = run(*args, "-o", "json")
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


async def heard(url: str, *sends: str, body_max_bytes: int = 2_000) -> list[str]:
    """Let the shop send these and relay what it can; what arrived."""
    orders, mail = Service("orders"), Service("mail")
    arrived: list[str] = []

    @mail.on(PLACED)
    async def on_placed(order: str) -> None:
        arrived.append(order)

    orders.database = f"{url.removesuffix('.db')}.orders.db"
    settings = Settings(body_max_bytes=body_max_bytes)
    async with Bus(url, name="shop", services=[orders, mail], settings=settings) as bus:
        for order in sends:
            async with bus.transaction(orders) as tx:
                await tx.publish(PLACED, order, id=f"m-{order[:2]}")
        await bus.idle()
    return arrived


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A broker beside which a row of key a is parked, and another waits behind it."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    monkeypatch.setenv("CALLCAST_BROKER", url)
    assert asyncio.run(heard(url, LARGE, "a2", "b1")) == ["b1"]
    return url


def test_what_is_parked_is_counted_and_listed_with_its_reason(url: str) -> None:
    [status] = records("status")
    assert (status["bus"], status["ready"], status["delayed"], status["parked"]) == (
        "shop",
        0,
        1,
        1,
    )
    [row] = records("ls")
    assert (row["id"], row["key"], row["behind"]) == ("m-aa", "a", 1)
    assert "exceeds the limit of 2000" in str(row["error"])
    assert run("ls").stdout.splitlines()[0].split() == [
        "ID",
        "TOPIC",
        "KEY",
        "BEHIND",
        "ATTEMPTS",
        "AGE",
        "ERROR",
    ]


def test_once_the_reason_is_mended_a_flush_sends_it_first(url: str) -> None:
    flushed = run("flush")
    assert flushed.exit_code == 0
    assert "1 rows are tried again" in flushed.stderr
    assert asyncio.run(heard(url, body_max_bytes=10_000)) == [LARGE, "a2"]
    assert records("status") == []


def test_flushed_before_that_it_is_parked_again(url: str) -> None:
    assert [row["id"] for row in records("flush")] == ["m-aa"]
    assert records("ls") == []
    assert asyncio.run(heard(url)) == []
    assert [row["id"] for row in records("ls")] == ["m-aa"]


def test_a_skipped_row_is_printed_whole_and_its_key_goes_on(url: str) -> None:
    skipped = run("skip", "m-aa", "-o", "json")
    assert skipped.exit_code == 0
    assert json.loads(json.loads(skipped.stdout)["body"]) == LARGE
    assert "1 rows of its key go on" in skipped.stderr
    assert asyncio.run(heard(url)) == ["a2"]


def test_a_row_that_is_not_parked_is_not_skipped(url: str) -> None:
    result = run("skip", "m-a2")
    assert result.exit_code == 2
    assert "no row of message m-a2 is parked" in result.stderr
    assert [row["id"] for row in records("ls")] == ["m-aa"]


def test_a_database_elsewhere_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.orders.db").rename(tmp_path / "elsewhere.db")
    for path in tmp_path.glob("shop.orders.db-*"):
        path.rename(tmp_path / path.name.replace("shop.orders", "elsewhere"))
    assert records("ls") == []
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    assert [row["database"] for row in records("ls", "--database", elsewhere)] == ["elsewhere.db"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--database", "sqlite:///none.db"], "there is no database none.db"),
        (["--broker", "amqp://localhost/"], "databases of their own"),
    ],
)
def test_what_cannot_be_looked_at_is_said(url: str, args: list[str], says: str) -> None:
    result = run("ls", *args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not Path("none.db").exists()
