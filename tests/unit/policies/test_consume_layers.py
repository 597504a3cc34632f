"""The layers around consumed work: repeats, notes of the dead, expiry, timeouts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from policies_kit import Handler, a_call, a_delivery, ports_of

from callcast.core.errors import (
    Attempt,
    Busy,
    Duplicate,
    Misuse,
    NotSent,
    Refused,
    Unavailable,
    Undecodable,
)
from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.core.work import Work
from callcast.policies.chain import chain
from callcast.policies.expire import Expire
from callcast.policies.history import attach_attempts, attempts_of
from callcast.policies.notes import Origin
from callcast.policies.recover import Recover
from callcast.policies.recovery import Recovery
from callcast.policies.repeat import Repeat
from callcast.policies.timeout import Timeout
from callcast.policies.validate import Validate, ValidateRequest
from callcast.runtime import recipes
from callcast.testing.clock import ManualClock

ORIGIN = Origin(
    source="orders.placed",
    group="warehouse",
    handler="shop.pack (shop.py:7)",
    host="host-1",
    version="0.1.0",
)
AT = "2023-11-14T22:13:20.000Z"


def decode(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError as error:
        raise Undecodable(str(error), field="$") from error


def consuming(
    handler: Callable[[Work], object],
    clock: ManualClock,
    recovery: Recovery | None = None,
    timeout: float = 300.0,
) -> Callable[[Work], object]:
    parts = recipes.Consuming(
        recovery=recovery or Recovery(),
        origin=ORIGIN,
        type="orders.placed",
        decode=decode,
        timeout=timeout,
    )
    layers = recipes.consume(parts, ports_of(clock, dice=lambda: 0.0))
    return chain(layers, handler)  # type: ignore[arg-type]


async def verdict(handler: Handler, work: Work | None = None, **options: object) -> Outcome:
    run = consuming(handler, ManualClock(), **options)  # type: ignore[arg-type]
    return await run(work or a_delivery())  # type: ignore[misc]


async def test_a_handler_that_is_done_is_done() -> None:
    handler = Handler()
    assert await verdict(handler, a_delivery(b"42")) is DONE
    assert handler.runs == [(1, 42)]


async def test_a_failing_handler_runs_four_times_in_a_round() -> None:
    handler = Handler(*[ValueError(str(number)) for number in range(4)])
    outcome = await verdict(handler)
    assert isinstance(outcome, Later)
    assert outcome.delay == 10.0
    assert outcome.reason == "ValueError: 3"
    assert [attempt for attempt, _ in handler.runs] == [1, 2, 3, 4]


async def test_attempts_are_numbered_over_the_rounds_to_twenty() -> None:
    numbers: list[int] = []
    outcomes: list[Outcome] = []
    for place in range(5):
        handler = Handler(*[ValueError()] * 4)
        outcomes.append(await verdict(handler, a_delivery(round=place)))
        numbers += [attempt for attempt, _ in handler.runs]
    assert numbers == list(range(1, 21))
    assert [type(outcome) for outcome in outcomes] == [Later, Later, Later, Later, Dead]
    last = outcomes[-1]
    assert isinstance(last, Dead)
    assert last.notes["callcast-attempts"] == "20"


async def test_a_repeat_that_succeeds_is_done() -> None:
    handler = Handler(ValueError(), OSError())
    assert await verdict(handler) is DONE
    assert len(handler.runs) == 3


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Refused("no"), Dead), (Misuse("x"), Dead), (Busy("x"), Release), (Unavailable("x"), Release)],
)
async def test_what_an_immediate_repeat_cannot_mend_is_not_repeated(
    error: Exception, kind: type[Outcome]
) -> None:
    handler = Handler(error)
    assert isinstance(await verdict(handler), kind)
    assert len(handler.runs) == 1


async def test_a_rule_sets_its_own_number_of_repeats() -> None:
    once = Recovery(immediate=0, delays=(7.0,))
    handler = Handler(OSError("x"), OSError("x"))
    outcome = await verdict(handler, recovery=Recovery(rules={OSError: once}))
    assert isinstance(outcome, Later)
    assert outcome.delay == 7.0
    assert len(handler.runs) == 1


async def test_a_message_is_decoded_once_for_all_runs() -> None:
    decoded: list[bytes] = []

    def counting(body: bytes) -> object:
        decoded.append(body)
        return body

    parts = recipes.Consuming(
        recovery=Recovery(), origin=ORIGIN, type="orders.placed", decode=counting
    )
    handler = Handler(*[ValueError()] * 4)
    run = chain(recipes.consume(parts, ports_of(ManualClock())), handler)
    assert isinstance(await run(a_delivery()), Later)
    assert decoded == [b"1"]


async def test_undecodable_bytes_are_dead_at_once_and_keep_no_handler_busy() -> None:
    handler = Handler()
    outcome = await verdict(handler, a_delivery(b"{", round=0))
    assert isinstance(outcome, Dead)
    assert outcome.reason.startswith("Undecodable: ")
    assert outcome.notes["callcast-error-type"] == "callcast.core.errors.Undecodable"
    assert outcome.notes["callcast-attempts"] == "0"
    assert handler.runs == []


async def test_an_expired_message_is_dead_with_notes_and_does_not_run() -> None:
    handler = Handler()
    clock = ManualClock()
    late = a_delivery(expires=clock.wall())
    outcome = await verdict(handler, late)
    assert isinstance(outcome, Dead)
    assert (outcome.reason, outcome.cause) == ("expired", None)
    assert outcome.notes["callcast-source"] == "orders.placed"
    assert "callcast-error-type" not in outcome.notes
    assert handler.runs == []
    assert await verdict(handler, a_delivery(expires=clock.wall() + 0.1)) is DONE


async def test_work_without_a_message_never_expires() -> None:
    handler = Handler()
    assert await Expire(ManualClock())(a_call(), handler) is DONE


async def test_a_dead_letter_says_where_when_and_why() -> None:
    handler = Handler(Refused("no such sku"))
    outcome = await verdict(handler)
    assert isinstance(outcome, Dead)
    notes = dict(outcome.notes)
    assert "policies_kit.py" in notes.pop("callcast-error-stack")
    assert notes == {
        "callcast-source": "orders.placed",
        "callcast-group": "warehouse",
        "callcast-handler": "shop.pack (shop.py:7)",
        "callcast-attempts": "1",
        "callcast-first-failed-at": AT,
        "callcast-last-failed-at": AT,
        "callcast-error-type": "callcast.core.errors.Refused",
        "callcast-error-message": "no such sku",
        "callcast-host": "host-1",
        "callcast-version": "0.1.0",
    }


async def test_a_later_message_remembers_when_it_first_failed() -> None:
    first = await verdict(Handler(*[ValueError("x")] * 4))
    assert isinstance(first, Later)
    assert "callcast-error-stack" not in first.notes
    assert first.notes["callcast-error-message"] == "x"
    carried = {"callcast-first-failed-at": "2023-11-01T00:00:00.000Z"}
    last = await verdict(Handler(*[ValueError("x")] * 4), a_delivery(round=4, headers=carried))
    assert isinstance(last, Dead)
    assert last.notes["callcast-first-failed-at"] == "2023-11-01T00:00:00.000Z"
    assert last.notes["callcast-last-failed-at"] == AT


async def test_a_layer_inside_may_say_dead_itself_and_its_notes_win() -> None:
    async def inside(work: Work) -> Outcome:
        return Dead("id_reuse", {"callcast-handler": "the inbox"})

    outcome = await Recover(Recovery(), ORIGIN, clock=ManualClock(), dice=lambda: 0.0)(
        a_delivery(), inside
    )
    assert isinstance(outcome, Dead)
    assert outcome.notes["callcast-handler"] == "the inbox"
    assert outcome.notes["callcast-group"] == "warehouse"


@pytest.mark.parametrize(
    "raised",
    [
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        BaseExceptionGroup("children", [KeyboardInterrupt()]),
    ],
)
async def test_what_is_no_exception_passes(raised: BaseException) -> None:
    recover = Recover(Recovery(), ORIGIN, clock=ManualClock(), dice=lambda: 0.0)
    with pytest.raises(type(raised)):
        await recover(a_delivery(), Handler(raised))


@pytest.mark.parametrize("raised", [Duplicate(), BaseExceptionGroup("children", [Duplicate()])])
async def test_a_duplicate_is_done(raised: BaseException) -> None:
    recover = Recover(Recovery(), ORIGIN, clock=ManualClock(), dice=lambda: 0.0)
    assert await recover(a_delivery(), Handler(raised)) is DONE


async def test_a_group_of_one_error_is_judged_as_that_error() -> None:
    outcome = await verdict(Handler(ExceptionGroup("children", [Refused("no")])))
    assert isinstance(outcome, Dead)
    assert outcome.reason == "Refused: no"
    assert outcome.notes["callcast-attempts"] == "1"


async def test_a_call_that_failed_inside_a_handler_does_not_count_as_runs() -> None:
    error = NotSent("down")
    attach_attempts(error, [Attempt(number, "x", 0.1) for number in (1, 2, 3)])
    outcome = await verdict(Handler(*[error] * 4), a_delivery(round=4))
    assert isinstance(outcome, Dead)
    assert outcome.notes["callcast-attempts"] == "20"
    assert len(attempts_of(error)) == 3


async def test_all_runs_of_a_delivery_end_within_its_timeout() -> None:
    clock = ManualClock()
    starts: list[float] = []

    async def slow(work: Work) -> Outcome:
        starts.append(clock.now() - 1_000.0)
        await clock.sleep(7.0)
        raise OSError("x")

    run = consuming(slow, clock, timeout=10.0)
    task = asyncio.ensure_future(run(a_delivery()))  # type: ignore[arg-type]
    await clock.advance(9.99)
    assert not task.done()
    await clock.advance(0.01)
    outcome = task.result()
    assert isinstance(outcome, Later)
    assert outcome.reason.startswith("TimeoutError: 'orders.placed': the handler was cancelled")
    assert starts == [0.0, 7.0]


async def test_a_delivery_that_must_end_sooner_does() -> None:
    clock = ManualClock()

    async def slow(work: Work) -> Outcome:
        await clock.sleep(4.0)
        raise OSError("x")

    repeat = Repeat(Recovery(), clock=clock, timeout=100.0)
    run = chain([repeat, Timeout(100.0, clock=clock)], slow)
    work = a_delivery()
    bounded_work = Work(work.kind, work.name, message=work.message, deadline=1_006.0)
    task = asyncio.ensure_future(run(bounded_work))
    await clock.advance(6.0)
    await clock.advance(94.0)
    with pytest.raises(TimeoutError):
        await task


async def test_each_run_has_a_timeout_of_its_own_within_the_delivery() -> None:
    clock = ManualClock()
    repeat = Repeat(Recovery(), clock=clock, timeout=10.0)
    deadlines: list[float | None] = []

    async def fails(work: Work) -> Outcome:
        deadlines.append(work.deadline)
        raise OSError("x")

    with pytest.raises(OSError, match="x"):
        await repeat(a_delivery(), fails)
    assert deadlines == [None, 1_010.0, 1_010.0, 1_010.0]


async def test_validate_wants_bytes_and_a_request_its_payload() -> None:
    async def value(work: Work) -> object:
        return work.value

    assert await Validate(a_delivery().name, decode)(a_delivery(b"[1]"), value) == [1]
    with pytest.raises(Misuse, match="given str, not bytes"):
        await Validate("", decode)(a_call(), value)
    served = Work(a_call().kind, "inventory.stock", value=lambda: {"sku": "tea"})
    assert await ValidateRequest()(served, value) == {"sku": "tea"}
    with pytest.raises(Misuse, match="no payload"):
        await ValidateRequest()(a_call(), value)
