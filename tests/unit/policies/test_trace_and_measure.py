"""The layers that observe: spans and durations around work."""

from __future__ import annotations

import asyncio

import pytest
from policies_kit import Handler, Remembering, Span, Tracing, a_call, a_delivery

from callcast.core.outcome import DONE, Outcome
from callcast.core.work import Work
from callcast.policies.observing import Measure, Trace
from callcast.policies.silent import Silent, SilentSpan
from callcast.runtime import recipes
from callcast.testing.clock import ManualClock


async def test_a_span_is_around_the_work_and_hears_how_it_ended() -> None:
    observer = Tracing()
    trace = Trace(observer)
    assert await trace(a_delivery(), Handler()) is DONE
    fault = ValueError("x")
    with pytest.raises(ValueError, match="x"):
        await trace(a_delivery(), Handler(fault))
    assert [span.ended for span in observer.spans] == [[(None, DONE)], [(fault, None)]]


def test_a_silent_observer_has_spans_that_are_none() -> None:
    observer = Silent()
    assert isinstance(observer.begin(a_call()), SilentSpan)
    assert isinstance(observer.attempt(a_call(), "http://x"), SilentSpan)
    assert observer.carrier(a_call()) == {}
    observer.measure(a_call(), 1.0, None)
    observer.begin(a_call()).end(ValueError(), status=500)
    assert Span().ended == []


class Recording(Remembering):
    is_tracing = True


class Switched(Tracing):
    """Somebody begins to record, and ends."""

    is_tracing = False


async def test_nothing_is_watched_while_nobody_records() -> None:
    observer = Switched()
    layers = [Trace(observer), Measure(observer, ManualClock())]
    run = recipes.assembled(layers, Handler(), observer)
    assert await run(a_delivery()) is DONE
    assert observer.spans == []
    observer.is_tracing = True
    assert await run(a_delivery()) is DONE
    assert [span.ended for span in observer.spans] == [[(None, DONE)]]
    observer.is_tracing = False
    assert await run(a_delivery()) is DONE
    assert len(observer.spans) == 1


async def test_durations_are_measured_whatever_the_end() -> None:
    clock, observer = ManualClock(), Recording()
    measure = Measure(observer, clock)

    async def slow(work: Work) -> Outcome:
        await clock.sleep(2.5)
        return DONE

    task = asyncio.ensure_future(measure(a_delivery(), slow))
    await clock.advance(2.5)
    assert await task is DONE
    cancelled = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await measure(a_delivery(), Handler(cancelled))
    assert observer.measured == [("orders.placed", 2.5, None), ("orders.placed", 0.0, cancelled)]
