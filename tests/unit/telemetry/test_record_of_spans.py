"""The record has spans that make one tree across calls and casts, with and without a tracer."""

from __future__ import annotations

from pathlib import Path

import pytest
from record_kit import PLACED, STOCK, ran
from telemetry_kit import SPAN, TRACE, TRACEPARENT, StillClock, Watched, message

from callcast import Bus, Remote
from callcast.core.context import AMBIENT, Context
from callcast.core.outcome import Dead, Done, Later
from callcast.core.recorded import CALL_ID, RecordedSpan
from callcast.core.work import CALL, CONSUME, PUBLISH, SERVE, Work
from callcast.policies.silent import Silent
from callcast.telemetry.record import RecordingObserver, ids, recording
from callcast.telemetry.record.reading import spans, spans_of
from callcast.telemetry.record.ring import RING_MAX, TRACES_A_SECOND, Ring


async def one_order(bus: Bus) -> None:
    await bus.publish(PLACED, "tea", id="o-1")


def tree(found: list[RecordedSpan] | tuple[RecordedSpan, ...]) -> set[tuple[str, str]]:
    """Child and parent by name; a root has an empty one."""
    names = {span.span_id: f"{span.service} {span.name}" for span in found}
    return {(names[span.span_id], names.get(span.parent_id, "")) for span in found}


def test_one_order_is_one_tree(tmp_path: Path) -> None:
    found = spans_of(ran(tmp_path, one_order), "o-1")
    assert tree(tuple(found)) == {
        ("till publish orders.placed", ""),
        ("warehouse process orders.placed", "till publish orders.placed"),
        ("warehouse call inventory.stock", "warehouse process orders.placed"),
        ("inventory POST /callcast/inventory.stock", "warehouse call inventory.stock"),
        ("warehouse publish mail.send", "warehouse process orders.placed"),
        ("mail process mail.send", "warehouse publish mail.send"),
    }
    assert len({span.trace_id for span in found}) == 1
    assert {span.correlation_id for span in found} == {"o-1"}


def test_a_trace_is_found_by_its_own_id_too(tmp_path: Path) -> None:
    path = ran(tmp_path, one_order)
    found = spans_of(path, "o-1")
    assert spans_of(path, found[0].trace_id) == found
    assert spans_of(path, "somebody else's") == []


def test_no_traceparent_is_begun_and_one_that_came_goes_on_as_it_is(tmp_path: Path) -> None:
    """Its sampled flag would speak for a sampler that nobody has asked."""
    watched = observer(tmp_path / "r")
    assert watched.carrier(Work(PUBLISH, PLACED.name, "m-1", message=message())) == {}
    call = Work(CALL, STOCK.name, "c-1", STOCK, "inventory")
    assert watched.carrier(call) == {CALL_ID: "c-1"}


def test_errors_are_kept_when_ordinary_traces_are_not_any_more() -> None:
    ring = Ring()
    kept = sum(ring.wants(f"c-{number}", failed=False, slow=False) for number in range(1_000))
    assert kept == TRACES_A_SECOND
    assert ring.wants("c-2000", failed=True, slow=False)
    assert ring.wants("c-2001", failed=False, slow=True)
    assert ring.wants("c-0", failed=False, slow=False), "a trace is kept whole"
    ring.taken()
    assert ring.wants("c-3000", failed=False, slow=False), "and the next second others"


def test_all_are_kept_where_that_is_asked_for() -> None:
    ring = Ring(keeps_all=True)
    assert all(ring.wants(f"c-{number}", failed=False, slow=False) for number in range(1_000))


def test_the_ring_is_bounded_and_counts_what_it_drops() -> None:
    ring = Ring(keeps_all=True)
    for number in range(RING_MAX + 5):
        if ring.wants(str(number), failed=True, slow=False):
            ring.keep(span(str(number)))
    assert ring.dropped == 5
    kept = ring.taken()
    ring.keep(span("later"))
    ring.put_back(kept)
    assert ring.dropped == 6
    assert len(ring.taken()) == RING_MAX


def test_slow_ones_are_bounded_apart() -> None:
    ring = Ring()
    for number in range(TRACES_A_SECOND):
        ring.wants(f"first {number}", failed=False, slow=False)
    assert 10 < sum(ring.wants(f"c-{n}", failed=False, slow=True) for n in range(1_000)) < 100


def test_a_redriven_message_is_a_trace_of_its_own_that_links(tmp_path: Path) -> None:
    watched = observer(tmp_path / "r")
    told = watched.handling("warehouse", PLACED)
    told(message(), Dead("Late('x')"), 0.1, tries=0)
    told(message(headers={"callcast-redrive-count": "1"}), Done(), 0.1, tries=0)
    watched.finish()
    first, again = spans_of(str(tmp_path / "r"), "c-1")
    assert first.is_error
    assert first.attributes["error.type"] == "Late"
    assert again.trace_id != first.trace_id
    assert again.links == ((first.trace_id, first.parent_id),)


def test_rounds_are_siblings_and_what_they_did_is_below_the_right_one(tmp_path: Path) -> None:
    clock = StillClock()
    watched = observer(tmp_path / "r", clock=clock)
    told = watched.handling("warehouse", PLACED)
    token = AMBIENT.set(Context("m-1", "c-1", service="warehouse", name=PLACED.name, headers={}))
    for tries, outcome in enumerate((Later(1.0, "busy"), Done())):
        clock.time += 10.0
        call = Work(CALL, STOCK.name, f"call {tries}", STOCK, "inventory", context=AMBIENT.get())
        watched.note(call, 0.1, None)
        told(message(time=100.0), outcome, 0.5, tries=tries)
    AMBIENT.reset(token)
    watched.finish()
    found = spans(str(tmp_path / "r"))
    runs = [each for each in found if each.kind == "consumer"]
    calls = [each for each in found if each.kind == "internal"]
    assert len({run.span_id for run in runs}) == 2
    assert runs[0].parent_id == runs[1].parent_id
    assert [call.parent_id for call in calls] == [run.span_id for run in runs]


def test_a_trace_that_came_in_names_the_spans(tmp_path: Path) -> None:
    watched = observer(tmp_path / "r")
    served = Work(
        SERVE,
        STOCK.name,
        "s-1",
        STOCK,
        "inventory",
        context=Context("s-1", "c-1", service="inventory", headers={"traceparent": TRACEPARENT}),
        url="http:/callcast/inventory.stock",
    )
    watched.note(served, 0.1, None)
    told = watched.handling("warehouse", PLACED)
    told(message(traceparent=TRACEPARENT), Done(), 0.1, tries=0)
    watched.finish()
    found = spans(str(tmp_path / "r"))
    assert {each.trace_id for each in found} == {TRACE}
    assert {each.parent_id for each in found} == {SPAN}


@pytest.mark.parametrize(
    "text", [None, "", "00-short", f"00-{'0' * 32}-{SPAN}-01", f"00-{'z' * 32}-{SPAN}-01"]
)
def test_what_is_no_traceparent_is_none(text: str | None) -> None:
    assert ids.parsed(text) == ("", "")


def test_with_a_tracer_the_record_has_its_ids(tmp_path: Path) -> None:
    tracer = Watched()
    watched = observer(tmp_path / "r", tracer)
    assert watched.is_tracing
    assert watched.hears_success
    with tracer.tracers.get_tracer("program").start_as_current_span("outer") as outer:
        call = Work(CALL, STOCK.name, "c-1", STOCK, "inventory")
        around = watched.begin(call)
        attempt = watched.attempt(call, "http://inventory:80/callcast/inventory.stock")
        assert CALL_ID not in watched.carrier(call)
        attempt.end(Remote("no", status=503), status=503)
        around.end()
        watched.measure(call, 0.1, None)
    handled = Work(
        CONSUME, PLACED.name, "m-1", PLACED, "warehouse", message=message(traceparent=TRACEPARENT)
    )
    watched.begin(handled).end(outcome=Later(1.0, "busy"))
    watched.measure(handled, 0.1, None)
    watched.finish()
    known = {f"{one.context.span_id:016x}": one for one in tracer.spans if one.context}
    found = {each.name: each for each in spans(str(tmp_path / "r"))}
    called = found["call inventory.stock"]
    assert called.span_id in known
    assert called.parent_id == f"{outer.get_span_context().span_id:016x}"
    assert found["POST /callcast/inventory.stock"].parent_id == called.span_id
    assert found["POST /callcast/inventory.stock"].is_error
    consumed = found["process orders.placed"]
    assert (consumed.trace_id, consumed.parent_id, consumed.is_error) == (TRACE, SPAN, True)


def test_what_a_tracer_saw_served_and_redriven_has_its_place_too(tmp_path: Path) -> None:
    tracer = Watched()
    watched = observer(tmp_path / "r", tracer)
    context = Context("s-1", "c-1", service="inventory", headers={"traceparent": TRACEPARENT})
    served = Work(SERVE, STOCK.name, "s-1", STOCK, "inventory", context=context, url="http:/x")
    watched.begin(served).end()
    again = message(traceparent=TRACEPARENT, headers={"callcast-redrive-count": "1"})
    watched.begin(Work(CONSUME, PLACED.name, "m-1", PLACED, "warehouse", message=again)).end()
    told = watched.handling("warehouse", PLACED)
    told(again, Done(), 0.1, tries=0)
    watched.finish()
    first, second = sorted(spans(str(tmp_path / "r")), key=lambda each: each.kind, reverse=True)
    assert (first.trace_id, first.parent_id) == (TRACE, SPAN)
    assert second.links == ((TRACE, SPAN),)
    assert second.parent_id == ""


def span(id_: str) -> RecordedSpan:
    return RecordedSpan(trace_id="t", span_id=id_, service="s", name="n", start=0.0, took=0.0)


def observer(
    path: Path, tracer: Watched | None = None, *, clock: StillClock | None = None
) -> RecordingObserver:
    return recording(
        Silent() if tracer is None else tracer.observer,
        clock or StillClock(),
        service="till",
        system="sqlite",
        path=str(path),
        process="1",
        keeps_all=True,
    )
