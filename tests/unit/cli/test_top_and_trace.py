"""`callcast top` and `callcast trace` show what the record has."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from callcast import Bus, Event, Operation, Recovery, Service
from callcast.cli import top as top_module
from callcast.cli.app import main
from callcast.cli.edges import Row, Waiting, rows
from callcast.cli.waterfall import bars, drawn
from callcast.core.recorded import RecordedEdge, RecordedSpan

STOCK = Operation("inventory.stock", str, int, idempotent=True)
PLACED = Event("orders.placed", str)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    inventory, warehouse = Service("inventory"), Service("warehouse")

    @inventory.serves(STOCK)
    async def stock(sku: str) -> int:
        return len(sku)

    @warehouse.on(PLACED, recovery=Recovery(immediate=0, delays=()))
    async def pack(sku: str, bus: Bus) -> None:
        await bus.call(STOCK, sku)
        if sku == "anvil":
            raise ValueError(sku)

    async def run() -> None:
        url = f"sqlite:///{folder / 'shop.db'}"
        async with Bus(url, name="till", services=[inventory, warehouse]) as bus:
            await bus.publish(PLACED, "tea", id="o-1")
            await bus.publish(PLACED, "anvil", id="o-2")
            await bus.idle()

    asyncio.run(run())
    return folder / "shop.db"


def call(shop: Path, *args: str) -> Result:
    return CliRunner().invoke(main, [*args, "--broker", f"sqlite:///{shop}"])


# top


def test_top_says_per_edge_how_often_how_long_and_what_waits(shop: Path) -> None:
    result = call(shop, "top", "--once", "--window", "900", "-o", "json")
    assert result.exit_code == 0, result.output
    found = {(row["caller"], row["callee"], row["verb"]): row for row in json.loads(result.stdout)}
    called = found["warehouse", "inventory", "call"]
    assert called["count"] == 2
    assert 0 < called["p50"] <= called["p99"] < 60
    assert called["backlog"] is None
    handled = found["till", "warehouse", "publish"]
    assert (handled["count"], handled["errors"], handled["backlog"]) == (2, 1, 0)
    assert handled["rate"] == pytest.approx(2 / 900)
    assert handled["queue_p95"] > 0


def test_top_is_a_table_for_people(shop: Path) -> None:
    result = call(shop, "top", "--once", "--window", "900")
    heading, *lines = result.stdout.splitlines()
    assert heading.split()[:5] == ["CALLER", "CALLEE", "NAME", "VERB", "RATE"]
    assert any("50.0 %" in line and "orders.placed" in line for line in lines)


def test_top_without_a_record_says_how_to_keep_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["top", "--record", str(tmp_path / "none"), "--once"])
    assert result.exit_code == 2
    assert "there is no record" in result.stderr
    assert "CALLCAST_RECORD=on" in result.stderr


def test_top_of_a_file_that_is_no_record_says_so(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("hello")
    result = CliRunner().invoke(main, ["top", "--record", str(tmp_path / "r"), "--once"])
    assert result.exit_code == 2
    assert "record" in result.stderr


def test_top_reads_a_record_without_a_broker(shop: Path) -> None:
    record = f"{shop}.record"
    result = CliRunner().invoke(main, ["top", "--record", record, "--once", "-o", "ndjson"])
    assert result.exit_code == 0, result.output
    assert {json.loads(line)["backlog"] for line in result.stdout.splitlines()} == {None}


def test_nothing_to_show_is_a_sentence() -> None:
    assert top_module.lines([]) == ["nothing was called or cast in this time"]


@pytest.mark.parametrize("has_rich", [True, False])
def test_the_live_page_ends_with_ctrl_c(shop: Path, *, has_rich: bool) -> None:
    # A test runner in the background may have been told to ignore Ctrl-C; its children would, too.
    code = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    if not has_rich:
        code += "sys.modules['rich'] = None\n"
    code += "from callcast.cli.app import main\nmain()"
    url = f"sqlite:///{shop}"
    args = [sys.executable, "-c", code, "top", "--broker", url, "--window", "900"]
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        args,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"},
    )
    os.close(theirs)
    said = b""
    for chunk in _chunks(ours):
        said += chunk
        if b"orders.placed" in said:
            break
    child.send_signal(signal.SIGINT)
    said += b"".join(_chunks(ours))
    os.close(ours)
    assert child.wait(60) == 130, said
    assert b"Traceback" not in said
    assert b"CALLER" in said
    if has_rich:
        assert said.count(b"\x1b[?1049h") == said.count(b"\x1b[?1049l") == 1
    else:
        assert b"pip install 'callcast[rich]'" in said


def _chunks(file: int) -> Iterator[bytes]:
    """What comes, until the other side is closed."""
    while select.select([file], [], [], 60.0)[0]:
        try:
            chunk = os.read(file, 65_536)
        except OSError:  # what Linux says of a terminal whose other side is closed
            return
        if not chunk:
            return
        yield chunk


# Rows


def edge(side: str, **changes: object) -> RecordedEdge:
    fields = {"caller": "a", "callee": "b", "name": "x.y", "verb": "publish", "side": side}
    return RecordedEdge(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_queue_that_is_handled_faster_than_it_fills_says_when_it_is_empty() -> None:
    found = rows(
        [edge("caller", callee="", count=300), edge("callee", count=400)],
        10.0,
        {("x.y.v2", "b"): Waiting(100, 3.0), ("other", "b"): Waiting(7, 1.0)},
    )
    (row,) = found
    assert (row.rate, row.arrivals, row.waiting) == (40.0, 30.0, Waiting(100, 3.0))
    assert row.drain == pytest.approx(10.0)


def test_a_queue_that_fills_faster_is_never_empty() -> None:
    (row,) = rows(
        [edge("caller", callee="", count=400), edge("callee", count=300)],
        10.0,
        {("x.y", "b"): Waiting(100, 3.0)},
    )
    assert row.drain is None
    assert "never" in top_module.lines([row.record()])[1]


def test_what_nobody_handles_and_what_only_the_callee_saw_is_shown_too() -> None:
    found = rows(
        [
            edge("caller", callee="", name="unheard.of", count=5),
            edge("callee", caller="", name="b.ask", verb="call", count=2),
        ],
        10.0,
    )
    assert [(row.caller, row.name, row.rate) for row in found] == [
        ("", "b.ask", 0.2),
        ("a", "unheard.of", 0.5),
    ]


def test_an_edge_without_a_broker_to_ask_says_nothing_of_draining() -> None:
    row = Row(caller="a", callee="b", name="n", verb="cast", rate=1.0)
    assert row.record()["drain"] is None


# trace


def test_trace_draws_one_order_with_its_time_in_the_queue(shop: Path) -> None:
    result = call(shop, "trace", "o-1")
    assert result.exit_code == 0, result.output
    heading, *lines = result.stdout.splitlines()
    assert "correlation id o-1: 4 spans, 3 services" in heading
    assert [line.rpartition("|")[2].split("ms", 1)[1].split()[1:3] for line in lines] == [
        ["publish", "orders.placed"],
        ["process", "orders.placed"],
        ["call", "inventory.stock"],
        ["POST", "/callcast/inventory.stock"],
    ]
    assert "in the queue" in lines[1]


def test_trace_marks_what_failed_and_why(shop: Path) -> None:
    result = call(shop, "trace", "o-2")
    assert "failed: ValueError" in result.stdout


def test_trace_as_json_has_the_tree(shop: Path) -> None:
    result = call(shop, "trace", "o-1", "-o", "json")
    found = json.loads(result.stdout)
    assert [bar["depth"] for bar in found] == [0, 1, 2, 3]
    assert found[1]["parent_id"] == found[0]["span_id"]
    assert found[1]["waited"] >= 0
    assert found[1]["attributes"]["messaging.message.id"] == "o-1"


def test_an_unknown_id_is_said_with_what_to_do(shop: Path) -> None:
    result = call(shop, "trace", "o-99")
    assert result.exit_code == 2
    assert "nothing is recorded under 'o-99'" in result.stderr
    assert "CALLCAST_RECORD_SPANS=all" in result.stderr


def span(id_: str, start: float, **changes: object) -> RecordedSpan:
    fields = {"trace_id": "t", "span_id": id_, "service": "s", "name": id_, "took": 1.0}
    return RecordedSpan(**{**fields, "start": start, **changes})  # type: ignore[arg-type]


def test_retries_are_siblings_and_what_was_redriven_is_linked() -> None:
    found = bars(
        [
            span("again", 9.0, kind="consumer", links=(("t", "p"),)),
            span("p", 0.0, kind="producer"),
            span("one", 3.0, kind="consumer", parent_id="p", is_error=True),
            span("two", 5.0, kind="consumer", parent_id="p"),
        ]
    )
    assert [(bar.span.name, bar.depth, bar.waited, bar.linked) for bar in found] == [
        ("p", 0, None, False),
        ("one", 1, 2.0, False),
        ("two", 1, 4.0, False),
        ("again", 0, 8.0, True),
    ]
    drawing = list(drawn(found))
    assert "a trace of its own, linked: redriven" in drawing[3]
    assert "·" in drawing[2]
    assert "▒" in drawing[1]


def test_ids_that_are_wrong_end_the_drawing_nowhere() -> None:
    found = bars([span("a", 0.0), span("a", 1.0, parent_id="a"), span("b", 2.0, parent_id="gone")])
    assert sorted(bar.span.name for bar in found) == ["a", "a", "b"]
