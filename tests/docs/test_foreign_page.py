"""The page about services that do not know callcast is true: its program joins such a service."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pika
import pytest
from rabbitmq_parts import stranger, until
from readme_parts import ROOT

from callcast import Bus

PAGE = (ROOT / "docs" / "foreign.md").read_text(encoding="utf-8")


@pytest.fixture
def program(tmp_path: Path) -> ModuleType:
    [text] = re.findall(r"^```python\n(# billing\.py.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    file = tmp_path / "billing.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("billing_of_the_page", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(60)
async def test_the_program_of_the_page_joins_the_crm(
    program: ModuleType, rabbitmq_url: str
) -> None:
    with stranger(rabbitmq_url) as crm:
        crm.exchange_declare("crm", "topic", durable=True)
        crm.exchange_declare("crm.dlx", "fanout", durable=True)
        crm.queue_declare("billing-in", durable=True)
        crm.queue_bind("billing-in", "crm", "customer.*")
        for queue, exchange, key in (
            ("crm-invoices", "crm", "invoiced.c-1"),
            ("crm-dead", "crm.dlx", ""),
        ):
            crm.queue_declare(queue, durable=True)
            crm.queue_bind(queue, exchange, key)
        known = pika.BasicProperties(message_id="1")
        crm.basic_publish("crm", "customer.new", b'{"id": "c-1", "name": "Ada"}', known)
        crm.basic_publish("crm", "customer.new", b"no JSON", known)
        async with Bus(rabbitmq_url, services=[program.billing]):
            invoice = await until(lambda: crm.basic_get("crm-invoices", auto_ack=True)[2])
            dead = await until(lambda: crm.basic_get("crm-dead", auto_ack=True)[2])
        assert json.loads(invoice or b"") == {"customer": "c-1"}
        assert dead == b"no JSON"
