"""Every log record says which work it belongs to, and facts are events with fields."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from telemetry_kit import TRACE, TRACEPARENT, Watched, context, serving

from callcast import Bus, Event, Operation, Refused, Remote, Service, Transaction
from callcast.core.context import AMBIENT
from callcast.ports import observer as facts
from callcast.telemetry.logs import (
    TEXT_MAX,
    Correlated,
    FactLog,
    JsonFormatter,
    LogFormatter,
    correlation,
    fields_of,
    install,
    log_event,
    redacted,
)


@pytest.fixture
def in_hand() -> Iterator[None]:
    token = AMBIENT.set(context())
    yield
    AMBIENT.reset(token)


def line(formatter: logging.Formatter, message: str = "hello") -> str:
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, message, None, None)
    Correlated().filter(record)
    return formatter.format(record)


def test_a_record_has_the_ids_of_the_work_in_hand(in_hand: None) -> None:
    watched = Watched()
    span = watched.observer.begin(serving(traceparent=TRACEPARENT))
    members = json.loads(line(JsonFormatter()))
    span.end()
    assert members["correlation_id"] == "c-1"
    assert members["causation_id"] == "cause-1"
    assert members["message_id"] == "m-1"
    assert members["trace_id"] == TRACE
    assert members["message"] == "hello"


def test_a_record_outside_of_work_has_empty_ids() -> None:
    assert set(correlation().values()) == {""}
    assert "correlation_id" not in line(LogFormatter())


def test_the_line_for_people_ends_with_the_correlation_id(in_hand: None) -> None:
    assert line(LogFormatter()).endswith("shop: hello correlation_id=c-1")


def test_the_line_for_programs_has_the_fields_and_the_traceback() -> None:
    error = ValueError("no")
    exc_info = (ValueError, error, None)
    record = logging.LogRecord("shop", logging.ERROR, __file__, 1, "x", None, exc_info)
    members = json.loads(JsonFormatter().format(record))
    assert "ValueError: no" in members["exception"]
    assert fields_of(record) == {}


@pytest.mark.parametrize(
    ("fact", "level", "text"),
    [
        (facts.LeaseLost("a/b", 3), "WARNING", "lease lost source='a/b' count=3"),
        (
            facts.Settled("a/b", "dead", 20, 1.0, "Late()"),
            "WARNING",
            "message settled source='a/b' outcome='dead' attempts=20 queue_time=1.0 error='Late()'",
        ),
        (
            facts.Settled("a/b", "later"),
            "INFO",
            "message settled source='a/b' outcome='later' attempts=1 queue_time=0.0",
        ),
        (
            facts.Settled("a/b", "done"),
            "DEBUG",
            "message settled source='a/b' outcome='done' attempts=1 queue_time=0.0",
        ),
        (
            facts.Retried("n", "p", "budget_denied", 2),
            "WARNING",
            "retry decided name='n' peer='p' outcome='budget_denied' attempt=2 delay=0.0",
        ),
        (
            facts.DuplicateSeen("a/b", "m-1"),
            "INFO",
            "duplicate seen consumer='a/b' message_id='m-1'",
        ),
    ],
)
def test_a_fact_is_one_event_with_fields(
    caplog: pytest.LogCaptureFixture, fact: facts.Fact, level: str, text: str
) -> None:
    caplog.set_level(logging.DEBUG, "callcast")
    FactLog().write(fact)
    (record,) = caplog.records
    assert record.levelname == level
    assert record.getMessage() == text
    assert text.startswith(f"{fields_of(record)['event']} ")


def test_a_fact_of_an_unknown_kind_is_still_told(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(facts.Fact, frozen=True):
        count: int = 1

    caplog.set_level(logging.INFO, "callcast")
    FactLog().write(Odd())
    assert caplog.messages == ["Odd count=1"]


def test_a_fact_below_the_level_is_not_even_put_into_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "callcast")
    FactLog().write(facts.Settled("a/b", "done"))
    assert caplog.records == []


def test_the_observer_logs_what_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    Watched().observer.tell(facts.KillSwitch("a/b", "open", "10 of 20 failed"))
    assert caplog.messages == [
        "kill switch changed source='a/b' state='open' reason='10 of 20 failed'"
    ]


def test_passwords_in_urls_and_long_texts_do_not_reach_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "callcast")
    log_event("broker away", {"url": "amqp://user:hunter2@mq:5672/", "size": 3, "none": None})
    assert caplog.messages == ["broker away url='amqp://***@mq:5672/' size=3"]
    assert len(redacted("x" * 10_000)) == TEXT_MAX + 3
    assert redacted("a://u:p@b c://d:e@f") == "a://***@b c://***@f"


def test_a_password_that_the_cut_would_expose_is_cleared_too() -> None:
    text = "x" * (TEXT_MAX - 20) + "amqp://user:hunter2-and-more@mq"
    assert "hunter2" not in redacted(text)


def test_install_adds_ids_to_every_handler_and_can_be_undone(
    capsys: pytest.CaptureFixture[str], in_hand: None
) -> None:
    root = logging.getLogger()
    stream = io.StringIO()
    present = logging.StreamHandler(stream)
    present.setFormatter(logging.Formatter("%(correlation_id)s %(message)s"))
    root.addHandler(present)
    before = (root.level, list(root.handlers))
    try:
        undo = install(level=logging.INFO, as_json=True)
        logging.getLogger("shop").info("packing")
        undo()
        assert (root.level, list(root.handlers)) == before
        assert present.filters == []
    finally:
        root.removeHandler(present)
    assert json.loads(capsys.readouterr().err)["correlation_id"] == "c-1"
    assert stream.getvalue() == "c-1 packing\n"


def test_install_writes_lines_for_people_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    undo = install()
    logging.getLogger("shop").warning("late")
    undo()
    assert capsys.readouterr().err.endswith("WARNING shop: late\n")


async def test_the_line_of_a_dead_message_has_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(Correlated())
    service, happened = Service("warehouse"), Event("orders.placed", str)

    @service.on(happened)
    async def pack(order: str) -> None:
        raise Refused("no box fits")

    async with Bus("memory://", services=[service]) as bus:
        await bus.publish(happened, "piano", id="m-1")
        await bus.idle()
    (line,) = [vars(each) for each in caplog.records if "outcome='dead'" in each.getMessage()]
    assert (line["message_id"], line["correlation_id"]) == ("m-1", "m-1")


async def test_an_unexpected_error_of_a_call_has_the_ids_of_the_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.handler.addFilter(Correlated())
    caplog.set_level(logging.DEBUG, "callcast")
    service = Service("inventory")
    stock = Operation("inventory.stock", str, int, idempotent=True)

    @service.serves(stock)
    async def count(sku: str) -> int:
        raise KeyError(sku)

    token = AMBIENT.set(context())
    try:
        async with Bus("memory://", services=[service]) as bus:
            with pytest.raises(Remote):
                await bus.call(stock, "tea", id="call-1")
    finally:
        AMBIENT.reset(token)
    failed = [vars(each) for each in caplog.records if each.levelname == "ERROR"]
    assert {(each["correlation_id"], each["causation_id"]) for each in failed} == {("c-1", "m-1")}
    retried = [vars(each) for each in caplog.records if "retry decided" in each.getMessage()]
    assert retried
    assert {each["message_id"] for each in retried} == {"call-1"}


def test_the_line_of_lost_leases_names_their_messages(caplog: pytest.LogCaptureFixture) -> None:
    FactLog().write(facts.LeaseLost("a/b", 2, ("m-1", "m-2"), ("c-1", "c-1"), ("", "m-0")))
    (line,) = caplog.messages
    assert line == (
        "lease lost source='a/b' count=2 message_ids=('m-1', 'm-2')"
        " correlation_ids=('c-1', 'c-1') causation_ids=('', 'm-0')"
    )


async def test_the_line_of_a_duplicate_has_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(Correlated())
    service, happened = Service("warehouse"), Event("orders.placed", str)

    @service.on(happened)
    async def pack(order: str, tx: Transaction) -> None: ...

    with caplog.at_level(logging.DEBUG, "callcast"):
        async with Bus("memory://", services=[service]) as bus:
            for _ in range(2):
                await bus.publish(happened, "piano", id="m-1")
                await bus.idle()
    (line,) = [vars(each) for each in caplog.records if "duplicate" in each.getMessage()]
    assert (line["message_id"], line["correlation_id"]) == ("m-1", "m-1")
