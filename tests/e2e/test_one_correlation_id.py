"""A request's correlation id is everywhere that anything came of it."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import aiohttp
import pytest
from http_parts import serving
from operator_parts import run

from callcast import Bus, Context, Event, Operation, Recovery, Refused, Service
from callcast.telemetry.logs import Correlated
from callcast.telemetry.record.reading import spans_of

PLACE = Operation("orders.place", str, str, idempotent=True)
STOCK = Operation("inventory.stock", str, int, idempotent=True)
PLACED = Event("orders.placed", str)
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
SEEN: list[Context] = []


def services() -> list[Service]:
    orders, inventory, mail = Service("orders"), Service("inventory"), Service("mail")

    @orders.serves(PLACE)
    async def place(sku: str, bus: Bus, context: Context) -> str:
        SEEN.append(context)
        logging.getLogger("orders").warning("placing")
        await bus.publish(PLACED, sku)
        await bus.call(STOCK, sku)
        return sku

    @inventory.serves(STOCK)
    async def stock(sku: str, context: Context) -> int:
        SEEN.append(context)
        raise Refused("none left")

    @mail.on(PLACED, recovery=Recovery(immediate=0, delays=()))
    async def send(sku: str, context: Context) -> None:
        SEEN.append(context)
        logging.getLogger("mail").warning("mailing")
        raise ValueError(sku)

    return [orders, inventory, mail]


@pytest.mark.parametrize("header", ["X-Correlation-ID", "X-Request-ID"])
async def test_it_is_in_logs_contexts_answers_problems_dead_letters_and_the_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header: str
) -> None:
    SEEN.clear()
    caplog.handler.addFilter(Correlated())
    caplog.set_level(logging.INFO)
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    bus = Bus(url, name="shop", services=services())
    said = {header: "request-7", "traceparent": TRACEPARENT}
    async with bus, serving(bus.asgi()) as at, aiohttp.ClientSession() as http:
        async with http.post(f"{at}/callcast/orders.place", json="tea", headers=said) as response:
            problem = json.loads(await response.read())
            assert response.status >= 400
            assert response.headers["X-Correlation-ID"] == "request-7"
        await bus.idle()
    assert problem["correlation_id"] == "request-7"
    assert {context.correlation_id for context in SEEN} == {"request-7"}
    assert len(SEEN) == 3
    own = [vars(record) for record in caplog.records if record.name in {"orders", "mail"}]
    assert [line["correlation_id"] for line in own] == ["request-7", "request-7"]
    settled = [vars(each) for each in caplog.records if "message settled" in each.getMessage()]
    assert {line["correlation_id"] for line in settled} == {"request-7"}
    listed = await asyncio.to_thread(run, "dlq", "ls", "--broker", url, "-o", "json")
    (letter,) = json.loads(listed.stdout)
    assert letter["correlation_id"] == "request-7"
    kept = spans_of(f"{tmp_path / 'shop.db'}.record", "request-7")
    assert {span.trace_id for span in kept} == {TRACE}, "and the trace that came goes on"
    assert {span.service for span in kept} == {"orders", "inventory", "mail"}
    assert {context.headers["traceparent"] for context in SEEN} == {TRACEPARENT}


async def test_without_one_the_first_id_is_it(tmp_path: Path) -> None:
    SEEN.clear()
    bus = Bus(f"sqlite:///{tmp_path / 'shop.db'}", name="shop", services=services())
    async with bus, serving(bus.asgi()) as at, aiohttp.ClientSession() as http:
        bad = {"X-Correlation-ID": "a b", "X-Request-ID": "<script>"}
        async with http.post(f"{at}/callcast/orders.place", json="tea", headers=bad) as response:
            made = response.headers["X-Correlation-ID"]
        await bus.idle()
    assert len(made) == 32
    assert {context.correlation_id for context in SEEN} == {made}
