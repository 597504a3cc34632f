"""The waterfall of the page is what the command shows of the shop, with other times."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from operator_parts import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reading-a-trace.md").read_text()
BUY = """
import asyncio, os
from callcast import Bus
from shop import fulfilment, inventory, notifications, orders, payments
from shop.contracts import CHECKOUT, Order

async def main():
    services = [each.service for each in (orders, inventory, payments, fulfilment, notifications)]
    async with Bus("sqlite:///shop.db", name="web", services=services) as bus:
        await bus.call(CHECKOUT, Order("o-17", "tea", 1, 450), id="checkout-o-17")
        await bus.idle()

asyncio.run(main())
"""


def shown(text: str) -> list[str]:
    """What each bar is of, with the depth that it stands at."""
    bars = re.findall(r"\|  +[\d.]+ m?s  (\S+ +\S+ \S+)", text)
    return [re.sub(r"^(\S+)( +)", lambda m: f"{m[1]} {len(m[1] + m[2])} ", bar) for bar in bars]


def test_the_waterfall(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", BUY], cwd=tmp_path, check=True, timeout=60,
        env={"PYTHONPATH": str(ROOT / "examples"), "CALLCAST_RECORD_SPANS": "all", "PATH": ""},
    )  # fmt: skip
    broker = f"sqlite:///{tmp_path / 'shop.db'}"
    ran = run("trace", "checkout-o-17", "--broker", broker)
    assert ran.exit_code == 0, ran.stderr
    assert len(shown(PAGE)) == 10
    assert shown(ran.stdout) == shown(PAGE)
    assert ran.stdout.count("in the queue") == 2
