"""`callcast advise` on a shop with seven mistakes, on the shop without them, and on traces of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from trace_parts import jaeger, order, zipkin

ROOT = Path(__file__).parents[2]
WRONG = ("orders", "inventory", "payments", "bank", "prices", "notifications", "fulfilment",
         "loyalty", "accounts", "reports")  # fmt: skip
MISTAKES = {"A02", "A04", "A05", "A06", "A07", "A14", "A15"}

BUY_WRONG = """
import asyncio
from callcast import Bus
from shop_wrong.contracts import CHECKOUT, Order
from shop_wrong.services import SERVICES

async def main():
    async with Bus("sqlite:///shop.db", name="web", services=SERVICES) as bus:
        for number in range(40):
            await bus.call(CHECKOUT, Order(f"o-{number}", "tea"))
        await bus.idle()

asyncio.run(main())
"""

BUY = """
import asyncio
from callcast import Bus
from shop import fulfilment, inventory, notifications, orders, payments
from shop.contracts import CHECKOUT, Order

async def main():
    services = [each.service for each in (orders, inventory, payments, fulfilment, notifications)]
    async with Bus("sqlite:///shop.db", name="web", services=services) as bus:
        for number in range(40):
            await bus.call(CHECKOUT, Order(f"o-{number}", "tea", 1, 450))
        await bus.idle()

asyncio.run(main())
"""


def python(folder: Path, *arguments: str, code: int = 0) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "examples"),
        "CALLCAST_RECORD_SPANS": "all",
        "NO_COLOR": "1",
    }
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout


def advise(folder: Path, *arguments: str, code: int = 0) -> str:
    return python(folder, "-m", "callcast", "advise", *arguments, code=code)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wrong shop has sold something."""
    folder = tmp_path_factory.mktemp("wrong")
    python(folder, "-c", BUY_WRONG)
    return folder


OF_WRONG = ("--broker", "sqlite:///shop.db", *(f"shop_wrong.services:{name}" for name in WRONG))


@pytest.mark.timeout(120)
def test_all_seven_mistakes_are_found_and_explained(wrong: Path) -> None:
    found = json.loads(advise(wrong, *OF_WRONG, "--format", "json"))
    assert {each["code"] for each in found["findings"]} >= MISTAKES
    about = {(each["code"], each["edge"]) for each in found["findings"]}
    assert ("A05", "orders->notifications:notifications.mail") in about
    assert ("A02", "orders->payments:payments.pay") in about
    assert ("A07", "orders->reports:orders.placed") in about
    assert ("A14", "orders->prices:prices.price") in about
    assert ("A15", "inventory -> orders -> inventory") in about
    verdicts = {each["name"]: each for each in found["interactions"]}
    mail = verdicts["notifications.mail"]
    assert (mail["verdict"], mail["rules"]) == ("CAST", ["R5"])
    assert mail["after"]["waits_for"] == mail["before"]["waits_for"] - 1
    page = advise(wrong, *OF_WRONG)
    assert "├──> notifications  notifications.mail  [call]   => CAST (R5)" in page
    assert "└┄┄> reports  orders.placed  [publish]" in page
    assert "await tx.cast(NOTIFICATIONS_MAIL, request)" in page
    for code in sorted(MISTAKES):
        assert code in page
        assert advise(wrong, "--explain", code).startswith(f"{code}  ")


@pytest.mark.timeout(120)
def test_in_the_shop_none_of_them_is_found(tmp_path: Path) -> None:
    python(tmp_path, "-c", BUY)
    services = [f"shop.{name}:service" for name in
                ("orders", "inventory", "payments", "fulfilment", "notifications")]  # fmt: skip
    found = json.loads(
        advise(tmp_path, "--broker", "sqlite:///shop.db", *services, "--format", "json")
    )
    assert {each["code"] for each in found["findings"]} & MISTAKES == set()
    verdicts = {each["name"]: each["verdict"] for each in found["interactions"]}
    assert verdicts["orders.placed"] == "PUBLISH"
    assert verdicts["inventory.reserve"] == "SAGA"


@pytest.mark.timeout(120)
def test_in_ci_new_findings_block_and_old_and_accepted_ones_do_not(wrong: Path) -> None:
    assert "A15" in advise(wrong, *OF_WRONG, "--ci", code=1)
    advise(wrong, *OF_WRONG, "--ci", "--exit-zero")
    advise(wrong, *OF_WRONG, "--write-baseline", "base.json")
    assert "findings of the baseline" in advise(wrong, *OF_WRONG, "--ci", "--baseline", "base.json")
    kept = json.loads((wrong / "base.json").read_text())
    name = next(key for key, said in kept["findings"].items() if said.startswith("A15"))
    del kept["findings"][name]
    (wrong / "base.json").write_text(json.dumps(kept))
    advise(wrong, *OF_WRONG, "--ci", "--baseline", "base.json", code=1)
    accept = '[[suppress]]\ncode = "A15"\nreason = "until spring"\nuntil = {}\n'
    (wrong / "advice.toml").write_text(accept.format("2999-01-01"))
    page = advise(wrong, *OF_WRONG, "--ci", "--baseline", "base.json")
    assert "is accepted: until spring" in page
    (wrong / "advice.toml").write_text(accept.format("2020-01-01"))
    page = advise(wrong, *OF_WRONG, "--ci", "--baseline", "base.json", code=1)
    assert "was accepted until 2020-01-01: decide again" in page
    (wrong / "advice.toml").unlink()


@pytest.mark.timeout(120)
def test_the_formats_of_programs(wrong: Path) -> None:
    sarif = json.loads(advise(wrong, *OF_WRONG, "--format", "sarif"))
    assert sarif["version"] == "2.1.0"
    [run] = sarif["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in run["results"]} == rules
    assert {result["level"] for result in run["results"]} <= {"error", "warning", "note"}
    places = [each["locations"][0].get("physicalLocation") for each in run["results"]]
    assert any(place and place["region"]["startLine"] > 1 for place in places)
    suite = fromstring(advise(wrong, *OF_WRONG, "--format", "junit"))
    assert suite.attrib["failures"] == str(len(run["results"]))
    record = advise(wrong, *OF_WRONG, "--format", "markdown")
    assert record.startswith("# Call or cast")
    assert "### orders->notifications:notifications.mail: CAST" in record


@pytest.mark.timeout(120)
def test_traces_of_a_system_that_never_heard_of_callcast(tmp_path: Path) -> None:
    spans = [span for number in range(60) for span in order(number, fails=number % 10 == 0)]
    (tmp_path / "jaeger.json").write_bytes(jaeger(spans))
    (tmp_path / "zipkin.json").write_bytes(zipkin(spans))
    (tmp_path / "advice.toml").write_text(
        '[assume]\nbroker = 99.9\n[interaction."shop->bank"]\nresponse = "none"\n'
        'on_failure = "must_not_lose"\n[interaction."a->b"]\nworkers = 1\n'
    )
    both = ("--from", "jaeger.json", "--from", "zipkin.json")
    page = advise(tmp_path, *both, "--what-if", "shop->bank=cast", "--check", "--slo", "99")
    assert "├──> bank  GET /charge  [call]   => CAST (R5)" in page
    assert "89.910% answered" in page
    assert "99.900% answered" in page
    assert "they agree" in page
    assert "- 540 x a span that was there already" in page


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "nowhere.json"], 2, "cannot read nowhere.json: No such file"),
        (["--from", "http://127.0.0.1:9/api/traces"], 3, "cannot reach http://127.0.0.1:9/api/"),
        (["--from", "empty.json"], 2, "no span in it that can be read"),
        (["--explain", "R55"], 2, "'R55' is no rule, formula or finding: try R5"),
        ([], 2, "there is no record"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.json").write_text("[]")
    ran = subprocess.run(
        [sys.executable, "-m", "callcast", "advise", *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode, said in ran.stderr) == (code, True), ran.stderr
    assert "Traceback" not in ran.stderr
