"""Which broker a URL names, and what is said when there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from callcast import Bus, Event, Misuse, Service, Transaction
from callcast.runtime import registry
from callcast.runtime.clock import AsyncioClock

PLACED = Event("orders.placed", str)


def writing(database: object) -> Service:
    """A service whose handler needs its database."""
    service = Service("orders", database=database)

    @service.on(PLACED)
    async def write(_order: str, _tx: Transaction) -> None: ...

    return service


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://host", r"pip install 'callcast\[kafka\]'"),
        ("amqp://host", r"pip install 'callcast\[rabbitmq\]'"),
        ("nats://host", "has no nats adapter yet"),
        ("rediss://host", "has no redis adapter yet"),
        ("postgresql://host", "has no postgres adapter yet"),
        ("carrier-pigeon://", "use one of memory, sqlite, amqp, amqps, kafka, kafkas, such"),
        ("memory://?speed=fast", "option 'speed' is unknown"),
        ("sqlite:///a.db?sync=off", "option 'sync' is unknown"),
        ("sqlite:///a.db?retain=long", "number of seconds"),
        ("sqlite://", "names no file"),
    ],
)
def test_a_url_that_names_no_broker_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    for driver in ("pika", "confluent_kafka"):
        monkeypatch.setitem(sys.modules, driver, None)  # as if it were not installed
    with pytest.raises(Misuse, match=said):
        registry.open_broker(url, AsyncioClock())


def test_a_missing_module_inside_an_installed_library_is_not_mistaken_for_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError):
        registry.load("asyncio.no_such_module", extra="kafka")


async def test_a_bus_is_used_only_while_it_is_open() -> None:
    bus = Bus("memory://")
    with pytest.raises(Misuse, match="not open"):
        await bus.idle()
    async with bus:
        await bus.idle()
    with pytest.raises(Misuse, match="entered before"):
        await bus.__aenter__()


@pytest.mark.parametrize(
    ("database", "said"),
    [
        (42, "'orders': database=int"),
        ("postgresql://host/orders", "'orders': database='postgresql:"),
        ("orders.db", "'orders': database='orders.db'"),
        ("mysql://me:s3cr3t@host/orders", "'orders': database='mysql:"),
        ("sqlite:///orders.db?synchronous=OFF", "option .synchronous. is unknown"),
    ],
)
async def test_a_database_that_is_none_is_refused(database: object, said: str) -> None:
    with pytest.raises(Misuse, match=said) as caught:
        async with Bus("memory://", services=[writing(database)]):
            pass
    assert "s3cr3t" not in str(caught.value)


async def test_the_broker_s_own_file_is_no_database(tmp_path: Path) -> None:
    """A transaction that is open would stop the broker."""
    url = f"sqlite:///{tmp_path}/somewhere/../broker.db"
    for _ in "made", "there":
        with pytest.raises(Misuse, match="'orders': its database is the broker's own file"):
            async with Bus(f"sqlite:///{tmp_path}/broker.db", services=[writing(url)]):
                pass
        async with Bus(f"sqlite:///{tmp_path}/broker.db", name="orders"):
            pass
