"""The rules: which verdict, by which rule, with what is asked for and what comes with it."""

from __future__ import annotations

import pytest
from advise_parts import edge, of, says, seen, system_of

from callcast.advise.advice import advice, constant
from callcast.advise.model import Interaction, Measured, Terms, Verb, Verdict
from callcast.advise.verdicts import Advice, Numbers
from callcast.advise.whatif import entries_over, the_edge, what_if
from callcast.core.errors import Misuse
from callcast.core.needs import Needs

PRICE = Needs(response="value", needed_within=0.1)
KEPT = Needs(response="none", on_failure="must_not_lose")


def advised(about: Interaction, *others: Interaction, slo: float = 99.9) -> Advice:
    found = advice(system_of(about, *others), slo)
    return next(each for each in found if each.edge == about.edge)


def test_a_mail_that_must_not_be_lost_is_cast_with_the_outbox() -> None:
    found = advised(says("orders->mail", needs=KEPT, measured=seen(1000, 20)))
    assert (found.verdict, found.rules) == (Verdict.CAST, ("R5",))
    assert found.is_change
    assert "await tx.cast(MAIL_ASK, request)" in found.change
    assert len(found.duties) == 3
    assert found.before is not None
    assert found.after is not None
    assert found.before.availability == pytest.approx(0.98)
    assert (found.after.availability, found.after.waits_for) == (1.0, 0)
    assert (found.before.p95, found.after.p95) == (pytest.approx(0.01, rel=0.02), 0.0)


def test_a_price_that_is_there_in_time_is_called() -> None:
    found = advised(says("shop->prices", needs=PRICE, measured=seen(20_000, 10, took=0.04)))
    assert (found.verdict, found.rules) == (Verdict.CALL, ("R1",))
    assert "p99 is 39.6 ms of 100 ms, and 99.95 % are answered" in found.reason
    assert not found.is_change
    assert (found.change, found.duties, found.conditions) == ("", (), ())


def test_a_price_over_a_queue_is_over_engineered() -> None:
    fast = Measured(count=20_000, errors=10, latency=of(0.3, 20_000), work=of(0.04, 20_000))
    found = advised(says("shop->prices", Verb.REQUEST, needs=PRICE, measured=fast))
    assert (found.verdict, found.rules) == (Verdict.CALL, ("R1", "R10"))
    assert "you over-engineered: call it" in found.reason
    assert found.change == "answer = await bus.call(PRICES_ASK, request)"
    assert found.is_change


@pytest.mark.parametrize(
    "about",
    [
        says("a->b", needs=PRICE, measured=seen(100, took=0.5)),
        says("a->b", needs=Needs(response="value", needed_within=1.0, work=9.0)),
        says("a->b", needs=Needs(response="value", needed_within=1.0), terms=Terms(deadline=0.2),
             measured=seen(100, took=0.5)),
    ],
)  # fmt: skip
def test_what_takes_longer_than_anybody_may_wait_answers_later(about: Interaction) -> None:
    found = advised(about)
    assert (found.verdict, found.rules[0]) == (Verdict.CAST, "R2")
    assert "reply_to=B_ASK_ANSWERED" in found.change


@pytest.mark.parametrize("more", [{"consistency": "eventual"}, {"on_failure": "degrade"}])
def test_what_is_away_too_often_and_may_be_stale_gets_a_fallback(more: dict[str, str]) -> None:
    needs = Needs(response="value", needed_within=1.0, **more)  # type: ignore[arg-type]
    found = advised(says("a->b", needs=needs, measured=seen(10_000, 500)))
    assert (found.verdict, found.rules) == (Verdict.CALL, ("R3",))
    assert "the last value that was good" in found.change


def test_what_is_away_too_often_and_must_be_true_is_mended_where_it_is() -> None:
    needs = Needs(response="value", needed_within=1.0, consistency="strong")
    found = advised(says("a->b", needs=needs, measured=seen(10_000, 500)))
    assert (found.verdict, found.rules) == (Verdict.CALL, ("R4",))
    assert "mended at the callee" in found.conditions[0]


def test_what_is_away_too_often_and_nobody_said_more_is_asked_for() -> None:
    found = advised(says("a->b", needs=PRICE, measured=seen(10_000, 500)))
    assert found.questions == ("needs.consistency of a->b:b.ask",)


def test_one_owner_is_called_and_two_are_a_saga() -> None:
    strong = Needs(response="ack", consistency="strong")
    one = advised(says("shop->stock", needs=strong))
    assert (one.verdict, one.rules) == (Verdict.CALL, ("R4",))
    two = advised(says("shop->stock", needs=strong), says("shop->bank", needs=strong))
    assert (two.verdict, two.rules) == (Verdict.SAGA, ("R4",))
    assert "bank, stock" in two.reason
    assert two.change == "undo.push_async_callback(bus.cast, UNDO_STOCK_ASK, request.id, now=True)"


@pytest.mark.parametrize("coupling", ["many", "unknown"])
def test_what_several_listen_to_is_published(coupling: str) -> None:
    needs = Needs(response="none", coupling=coupling)  # type: ignore[arg-type]
    assert advised(says("a->b", needs=needs)).rules == ("R6",)
    kept = Needs(response="none", coupling=coupling, on_failure="must_not_lose")  # type: ignore[arg-type]
    found = advised(says("a->b", needs=kept))
    assert (found.verdict, found.rules) == (Verdict.PUBLISH, ("R5", "R6"))
    assert found.change == "await tx.publish(B_ASK, fact)"


def test_of_a_message_nobody_said_anything_about_it_is_known_that_nobody_waits() -> None:
    assert advised(says("a->b", Verb.PUBLISH)).rules == ("R6",)
    assert advised(says("a->b", Verb.CAST)).questions == ("needs.on_failure of a->b:b.ask",)


def test_peaks_are_levelled_by_a_queue() -> None:
    busy = Measured(count=1000, window=100.0, peak_rate=40.0, work=of(0.02, 1000))
    needs, terms = Needs(response="none"), Terms(workers=1)
    found = advised(says("a->b", needs=needs, terms=terms, measured=busy))
    assert (found.verdict, found.rules) == (Verdict.CAST, ("R7",))
    assert "80% of 1 workers" in found.reason


def test_what_may_be_lost_is_cast_and_what_nobody_said_is_asked_for() -> None:
    found = advised(says("a->b", needs=Needs(response="none", on_failure="degrade")))
    assert (found.verdict, found.rules) == (Verdict.CAST, ("R8",))
    calm = says(
        "a->b", needs=Needs(response="none", peak_rate=1.0, work=0.1), terms=Terms(workers=1)
    )
    assert advised(calm).questions == ("needs.on_failure of a->b:b.ask",)
    assert advised(says("a->b")).questions == ("needs.response of a->b:b.ask",)
    endless = says("a->b", needs=Needs(response="value"))
    assert advised(endless).questions == ("needs.needed_within of a->b:b.ask",)


def test_on_thin_data_it_does_not_decide() -> None:
    found = advised(says("a->b", needs=PRICE, measured=seen(10)))
    assert (found.verdict, found.rules) == (Verdict.UNDECIDED, ("R9",))
    assert "20 more at least" in found.questions[0]


def test_advice_does_not_flip_unless_the_interval_clears_the_objective() -> None:
    fine = seen(100, took=0.01)
    stays = advised(says("a->b", needs=PRICE, measured=fine))
    assert (stays.verdict, stays.rules) == (Verdict.CALL, ("R1",))
    assert "too small to be sure" in stays.conditions[0]
    queued = advised(says("a->b", Verb.REQUEST, needs=PRICE, measured=fine))
    assert queued.verdict is Verdict.UNDECIDED
    doubtful = advised(says("a->b", needs=PRICE, measured=seen(100, 1)))
    assert doubtful.verdict is Verdict.UNDECIDED


def test_a_message_has_conditions() -> None:
    needs = Needs(response="none", on_failure="must_not_lose", idempotent=False, ordering="total")
    found = advised(says("a->b", needs=needs))
    assert found.rules == ("R5", "R9")
    assert ["delivered twice" in found.conditions[0], "total order" in found.conditions[1]] == [
        True
    ] * 2
    keyed = Needs(response="none", on_failure="must_not_lose", ordering="per_key")
    [said] = advised(says("a->b", needs=keyed, terms=Terms(is_keyed=False))).conditions
    assert "needs key=" in said


def test_what_stays_a_message_costs_nothing_new() -> None:
    found = advised(says("a->b", Verb.PUBLISH, needs=KEPT))
    assert (found.verdict, found.is_change, found.duties) == (Verdict.PUBLISH, False, ())


def test_where_nobody_comes_by_there_are_no_numbers() -> None:
    system = system_of(says("a->b", needs=KEPT), says("b->a"))
    assert entries_over(system, edge("a->b")) == []
    assert advice(system)[0].before is None


def test_what_if() -> None:
    system = system_of(says("a->b"), says("a->c"))
    then, changed = what_if(system, "a->b=cast")
    assert (changed, then.interactions[changed].verb) == (edge("a->b"), Verb.CAST)
    assert the_edge(system, "a->c:c.ask") == edge("a->c")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a->b", "write CALLER->CALLEE=VERB"),
        ("a->b=mail", "the verb one of call, cast"),
        ("a->bb=cast", "near it: a->b:b.ask"),
        ("xx->yy=cast", "near it: "),
        ("s->t=cast", "is 2 interactions: name one of s->t:one, s->t:two"),
    ],
)
def test_what_is_no_question_is_said(text: str, said: str) -> None:
    system = system_of(says("a->b"), says("s->t:one"), says("s->t:two"))
    with pytest.raises(Misuse, match=said):
        what_if(system, text)


def test_a_ring_ends_and_who_is_not_known_takes_no_time() -> None:
    system = system_of(
        says("a->b", measured=seen(10, took=0.2)), says("a->c"), says("c->d"), says("d->c")
    )
    del system.handlers["b", "b.ask"]
    found = next(each for each in advice(system) if each.edge == edge("a->b"))
    assert found.before is not None
    assert found.before.p95 == pytest.approx(0.2, rel=0.03)
    system.interactions[edge("a->b")].measured = None
    assert advice(system)[0].before == Numbers(1.0, 0.0, 3)


def test_names_of_code() -> None:
    assert constant("mail.send-now") == "MAIL_SEND_NOW"
    assert constant("POST /orders/{id}") == "POST__ORDERS__ID"
