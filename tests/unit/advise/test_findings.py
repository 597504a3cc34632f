"""Each finding: that it fires, with its numbers, and that it does not where nothing is wrong."""

from __future__ import annotations

from datetime import date

import pytest
from advise_parts import edge, of, says, seen, system_of
from msgspec.structs import replace

from callcast.advise.advice_file import Suppression
from callcast.advise.checks import findings
from callcast.advise.explain import TEXTS, explained
from callcast.advise.findings import Finding, Scope, without
from callcast.advise.model import Interaction, Measured, System, Terms, Verb
from callcast.core.errors import Misuse
from callcast.core.needs import Needs

ENOUGH = seen(100)


def found(system: System, code: str) -> list[Finding]:
    return [each for each in findings(Scope(system=system)) if each.code == code]


def only(about: Interaction, code: str) -> Finding:
    [one] = found(system_of(about), code)
    assert one.edge == str(about.edge)
    return one


def test_a_path_below_its_objective() -> None:
    system = system_of(says("a->b", measured=seen(1000, 10)))
    [one] = found(system, "A01")
    assert (one.edge, one.severity) == ("a:a.ask", "error")
    assert "99.000% of its requests can be answered" in one.said
    assert found(system_of(says("a->b", measured=seen(1000))), "A01") == []
    assert found(system_of(says("a->b", measured=seen(10, 5))), "A01") == []  # thin


def test_a_caller_that_gives_up_before_its_callee() -> None:
    slow = says("b->c", terms=Terms(deadline=2.0))
    [one] = found(system_of(says("a->b", terms=Terms(deadline=0.5)), slow), "A02")
    assert "a gives up after 0.5 s, and what b calls in its turn may take 2 s" in one.said
    assert found(system_of(says("a->b", terms=Terms(deadline=5.0)), slow), "A02") == []
    assert found(system_of(says("a->b"), slow, says("a->q", Verb.CAST)), "A02") == []


def test_attempts_that_multiply() -> None:
    four = Terms(attempts=4)
    system = system_of(says("a->b", terms=four), says("b->c", terms=four))
    [storm], [layers] = found(system, "A03"), found(system, "A04")
    assert "may ask c 16 times" in storm.said
    assert "a->b:b.ask, b->c:c.ask" in layers.said
    polite = Terms(attempts=4, gives_way=True)
    system = system_of(says("a->b", terms=four), says("b->c", terms=polite))
    assert found(system, "A03") == found(system, "A04") == []


def test_a_loop_around_a_call_is_a_layer_though_nobody_says_so() -> None:
    again = Measured(count=100, attempts=120)
    looped = [says("a->b", measured=again), says("b->c", measured=again)]
    assert len(found(system_of(*looped), "A04")) == 1
    said = replace(looped[1], terms=Terms(gives_way=True))
    assert len(found(system_of(looped[0], said), "A04")) == 1


def test_a_ring() -> None:
    [one] = found(system_of(says("a->b"), says("b->a")), "A15")
    assert one.edge == "a -> b -> a"


def test_an_answer_that_nobody_uses() -> None:
    assert (
        "waits for an answer of b" in only(says("a->b", needs=Needs(response="none")), "A05").said
    )
    unused = Measured(is_result_used=False)
    assert only(says("a->b", measured=unused), "A05")
    assert found(system_of(says("a->b", needs=Needs(response="value"))), "A05") == []


def test_one_fact_told_one_by_one() -> None:
    none = Needs(response="none")
    system = system_of(*(says(text, needs=none) for text in ("a->b", "a->c", "a->d")))
    [one] = found(system, "A06")
    assert "a tells 3 services one by one (b, c, d)" in one.said
    assert found(system_of(says("a->b", needs=none)), "A06") == []


@pytest.mark.parametrize(
    ("code", "about", "said"),
    [
        ("A07", says("a->b", Verb.CAST, terms=Terms(in_transaction=True, has_outbox=False)), "crash"),
        ("A08", says("a->b", terms=Terms(attempts=3, is_idempotent=False)), "tried 3 times"),
        ("A09", says("a->b", terms=Terms(attempts=1)), "no timeout"),
        ("A10", says("a->b", Verb.CAST, terms=Terms(has_dead_letters=False)), "for ever"),
        ("A11", says("a->b", Verb.CAST, terms=Terms(retry_horizon=60.0)), "dead after 60 s"),
        ("A13", says("a->b", Verb.PUBLISH, terms=Terms(retention=60.0)), "for 60 s"),
        ("A17", says("a->b", Verb.CAST, needs=Needs(ordering="per_key"),
                     terms=Terms(is_keyed=False)), "order matters"),
        ("A18", says("a->b", terms=Terms(is_saga_step=True, has_undo=False)), "nothing undoes"),
        ("A19", says("a->b", Verb.CAST, terms=Terms(dead_letters_watched=False)), "nobody is told"),
        ("A20", says("a->b", measured=seen(3)), "seen 3 times"),
        ("A12", says("a->b", terms=Terms(workers=1),
                     measured=Measured(peak_rate=9.0, work=of(0.1, 9))), "busy 9"),
        ("A12", says("a->b", terms=Terms(workers=1),
                     measured=Measured(peak_rate=20.0, work=of(0.1, 9))), "without end"),
        ("A14", says("a->b", Verb.REQUEST, measured=Measured(work=of(0.01, 9))), "two queues"),
        ("A16", says("a->b", measured=Measured(count=60, traces=10, calls_per_trace_max=9)), "6.0"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_one_interaction(code: str, about: Interaction, said: str) -> None:
    assert said in only(about, code).said


def test_where_nothing_is_wrong_nothing_is_found() -> None:
    call = says("a->b", needs=Needs(response="value"), measured=ENOUGH, terms=Terms(
        deadline=1.0, attempts=3, is_idempotent=True, workers=100))  # fmt: skip
    cast = says("b->c", Verb.CAST, measured=seen(100), terms=Terms(
        has_outbox=True, in_transaction=True, has_dead_letters=True, retry_horizon=7200.0,
        retention=86_400.0, dead_letters_watched=True, is_keyed=True, workers=10))  # fmt: skip
    cast.measured = Measured(count=100, work=of(0.001, 100), peak_rate=1.0)
    asked = says("c->d", Verb.REQUEST, measured=Measured(count=100, work=of(5.0, 100)))
    assert findings(Scope(system=system_of(call, cast, asked))) == []


def test_what_is_accepted_is_apart_until_its_day() -> None:
    one, other = (Finding("A15", text, "said", "remedy") for text in ("a -> b -> a", "c -> d -> c"))
    accepted = Suppression(code="A15", edge="a -> *", reason="soon", until=date(2027, 1, 1))
    sorted_out = without([one, other], [accepted], "2026-12-01")
    assert (sorted_out.open, sorted_out.suppressed) == ([other], [(one, accepted)])
    later = without([one, other], [accepted], "2027-01-02")
    assert (later.open, later.expired) == ([one, other], [(one, accepted)])
    for_good = without([one], [Suppression(code="A15", reason="it is so")], "2999-01-01")
    assert for_good.open == []
    assert edge("a->b").caller == "a"


def test_every_code_is_explained() -> None:
    codes = [f"R{n}" for n in range(1, 11)] + [f"F{n}" for n in range(1, 13)]
    assert set(TEXTS) == {*codes, *(f"A{n:02}" for n in range(1, 21))}
    assert explained("r5").startswith("R5  Nobody waits")
    with pytest.raises(Misuse, match="'A77' is no rule, formula or finding: try"):
        explained("A77")
    with pytest.raises(Misuse, match="R1 to R10, A01 to A20"):
        explained("?")
