"""The rules R1 to R10: the first that matches decides, those behind it add conditions.

| rule | if                                                        | then                       |
|------|-----------------------------------------------------------|----------------------------|
| R1   | value needed, p99 within the budget, available enough     | CALL                       |
| R2   | value needed, but it takes longer than anybody may wait   | CAST with ``reply_to``     |
| R3   | value needed, not available enough, a stale one will do   | CALL with a fallback       |
| R4   | strong consistency: one owner; several owners             | CALL; SAGA                 |
| R5   | no value, and it must not be lost                         | CAST, PUBLISH with outbox  |
| R6   | several consumers, or nobody knows how many               | PUBLISH                    |
| R7   | no value, and peaks fill the workers                      | CAST                       |
| R8   | no value, and it may be lost                              | CAST                       |
| R9   | recommended, but not idempotent, totally ordered or thin  | a condition, or UNDECIDED  |
| R10  | over a queue today though R1 holds                        | CALL                       |
"""

from __future__ import annotations

import dataclasses
from math import inf

from msgspec import Struct

from callcast.advise.confidence import Interval, wilson
from callcast.advise.load import utilisation
from callcast.advise.model import Interaction, Measured, System, Verb, Verdict
from callcast.core.needs import Needs

THIN = 30
"""Below so many samples a share says nothing."""
FULL = 0.8
"""Of the workers' time: beyond it waits grow steeply (F10)."""
CALM = 0.6
SLO = 99.9
"""Percent, where nobody says otherwise."""


class Ruling(Struct, kw_only=True):
    """What the rules make of an interaction."""

    verdict: Verdict
    rules: list[str]
    reason: str
    conditions: list[str] = []
    questions: list[str] = []
    has_reply: bool = False
    has_fallback: bool = False
    has_outbox: bool = False
    interval: Interval | None = None


class Case(Struct, frozen=True, kw_only=True):
    """An interaction as the rules look at it."""

    system: System
    about: Interaction
    slo: float
    """A share: 0.999."""
    measured: Measured
    needs: Needs
    budget: float | None
    """Seconds in which the answer is needed; None: nobody said."""
    interval: Interval

    @property
    def p99(self) -> float:
        """What the caller waits, of a request over a queue what the work itself takes."""
        seen = self.measured
        if self.about.verb is Verb.REQUEST and seen.work.count:
            return seen.work.quantile(0.99)
        return seen.latency.quantile(0.99)


def ruling(system: System, about: Interaction, slo: float = SLO) -> Ruling:
    """The verdict on one interaction of a system; `slo` is a percentage."""
    case = _case(system, about, slo)
    for rule in (_undecidable, _waits, _strong, _kept, _many, _levels, _best_effort):
        found = rule(case)
        if found is not None:
            return _with_conditions(case, found)
    return _asked(case, f"needs.on_failure of {about.edge}")


def _case(system: System, about: Interaction, slo: float) -> Case:
    needs, measured = _seen_needs(about), about.measured or Measured()
    budget = needs.needed_within or about.terms.deadline
    return Case(
        system=system,
        about=about,
        slo=(needs.slo or slo) / 100.0,
        measured=measured,
        needs=needs,
        budget=budget,
        interval=wilson(measured.count - measured.errors, measured.count),
    )


def _seen_needs(about: Interaction) -> Needs:
    """What is declared; of a message that nobody said anything about, what was seen of it."""
    needs = about.needs
    if about.verb in {Verb.CAST, Verb.PUBLISH} and needs.response is None:
        needs = dataclasses.replace(needs, response="none")
    if about.verb is Verb.PUBLISH and needs.coupling is None:
        needs = dataclasses.replace(needs, coupling="many")
    return needs


def _undecidable(case: Case) -> Ruling | None:
    if case.needs.response is None:
        return _asked(case, f"needs.response of {case.about.edge}")
    return None


def _asked(case: Case, question: str) -> Ruling:
    """Nobody can know from outside: it is asked for by name."""
    del case
    return Ruling(
        verdict=Verdict.UNDECIDED,
        rules=["R9"],
        reason=f"not known, and it would decide: {question}",
        questions=[question],
    )


def _waits(case: Case) -> Ruling | None:
    """R1 to R3, and R10: somebody needs the value."""
    if case.needs.response != "value":
        return None
    if case.budget is None:
        return _asked(case, f"needs.needed_within of {case.about.edge}")
    work = case.needs.work or 0.0
    limit = min(case.budget, case.about.terms.deadline or inf)
    if work > limit:
        return _later(case, f"the work takes {_seconds(work)}", limit)
    if case.measured.count < THIN:
        return _thin(case)
    if case.p99 > limit:
        return _later(case, f"p99 is {_seconds(case.p99)}", limit)
    return _available(case)


def _later(case: Case, why: str, limit: float) -> Ruling:
    """R2."""
    return Ruling(
        verdict=Verdict.CAST,
        rules=["R2"],
        reason=(
            f"the value is needed, but {why} and nobody may wait longer than {_seconds(limit)}:"
            " take the request, answer 202, and send the answer when it is there"
        ),
        has_reply=True,
        interval=case.interval,
    )


def _thin(case: Case) -> Ruling:
    """R9, F12."""
    seen = case.measured.count
    return Ruling(
        verdict=Verdict.UNDECIDED,
        rules=["R9"],
        reason=f"too little data: seen {seen} times, and {THIN} are the least",
        questions=[f"measurements of {case.about.edge}: {THIN - seen} more at least"],
        interval=case.interval,
    )


def _available(case: Case) -> Ruling:
    """R1, R3: in time; the question is how often there is an answer at all."""
    found, is_sure = case.interval, case.interval.clears(case.slo)
    share = 1.0 - case.measured.errors / case.measured.count
    is_enough = share >= case.slo
    said = (
        f"p99 is {_seconds(case.p99)} of {_seconds(case.budget or 0.0)}, and {_percent(share)} are"
        f" answered (n = {found.n}, 95 %: {_percent(found.low)} to {_percent(found.high)};"
        f" objective {_percent(case.slo)})"
    )
    if is_enough and case.about.verb is not Verb.CALL and is_sure:
        return Ruling(
            verdict=Verdict.CALL,
            rules=["R1", "R10"],
            reason=(
                f"you over-engineered: call it. Somebody waits at a queue for a value that"
                f" is there in time: {said}"
            ),
            interval=found,
        )
    if is_enough and (is_sure or case.about.verb is Verb.CALL):
        return Ruling(
            verdict=Verdict.CALL,
            rules=["R1"],
            reason=f"the value is needed now and is there in time: {said}",
            interval=found,
            conditions=[] if is_sure else ["the sample is too small to be sure of the objective"],
        )
    if not is_sure:
        return Ruling(
            verdict=Verdict.UNDECIDED,
            rules=["R9"],
            reason=f"the sample does not tell whether the objective is met: {said}",
            questions=[f"more measurements of {case.about.edge}"],
            interval=found,
        )
    return _not_available(case, said)


def _not_available(case: Case, said: str) -> Ruling:
    if case.needs.consistency == "strong" or case.needs.on_failure == "fail_caller":
        return Ruling(
            verdict=Verdict.CALL,
            rules=["R4"],
            reason=f"the value is needed as it is now, from the one who owns it: {said}",
            conditions=["its availability must be mended at the callee: no other verb helps"],
            interval=case.interval,
        )
    if case.needs.consistency == "eventual" or case.needs.on_failure == "degrade":
        return Ruling(
            verdict=Verdict.CALL,
            rules=["R3"],
            reason=f"the value is needed, and one of before will do when it is away: {said}",
            has_fallback=True,
            interval=case.interval,
        )
    return _asked(case, f"needs.consistency of {case.about.edge}")


def _strong(case: Case) -> Ruling | None:
    """R4."""
    if case.needs.consistency != "strong":
        return None
    owners = owners_changed(case.system, case.about)
    if len(owners) > 1:
        return Ruling(
            verdict=Verdict.SAGA,
            rules=["R4"],
            reason=(
                f"{case.about.edge.caller} changes {len(owners)} owners for one request"
                f" ({', '.join(owners)}): each step needs one that undoes it. Ask first whether"
                " they should be one service"
            ),
            conditions=["each step has a compensation that may run twice"],
        )
    return Ruling(
        verdict=Verdict.CALL,
        rules=["R4"],
        reason=f"strong consistency inside one owner: ask {case.about.edge.callee} itself",
    )


def owners_changed(system: System, about: Interaction) -> list[str]:
    """The services that must agree with each other for one request of this one's caller."""
    return sorted(
        {
            step.edge.callee
            for handler in system.handlers.values()
            if handler.service == about.edge.caller
            and any(step.edge == about.edge for step in handler.steps)
            for step in handler.steps
            if system.interactions[step.edge].needs.consistency == "strong"
            and step.edge.callee != handler.service
        }
    )


def _kept(case: Case) -> Ruling | None:
    """R5."""
    if case.needs.on_failure != "must_not_lose":
        return None
    verdict = _to_whom(case)
    return Ruling(
        verdict=verdict,
        rules=["R5", "R6"] if verdict is Verdict.PUBLISH else ["R5"],
        reason=(
            f"nobody waits for a value of {case.about.edge.callee}, and it must not be lost:"
            " write it in the same transaction as what it tells of, and let the outbox send it"
        ),
        has_outbox=True,
    )


def _to_whom(case: Case) -> Verdict:
    is_one = case.needs.coupling in {"one_known", None} and case.about.verb is not Verb.PUBLISH
    return Verdict.CAST if is_one else Verdict.PUBLISH


def _many(case: Case) -> Ruling | None:
    """R6."""
    if case.needs.coupling not in {"many", "unknown"}:
        return None
    return Ruling(
        verdict=Verdict.PUBLISH,
        rules=["R6"],
        reason="several listen, or nobody knows who: tell it once, and each hears it in time",
    )


def _levels(case: Case) -> Ruling | None:
    """R7."""
    seen, workers = case.measured, case.about.terms.workers
    work = case.needs.work or seen.work.mean
    peak = max(case.needs.peak_rate or 0.0, seen.peak_rate)
    if workers is None or not work or not peak:
        return None
    at_peak, usual = utilisation(peak, work, workers), utilisation(seen.rate, work, workers)
    if at_peak < FULL or usual >= CALM:
        return None
    return Ruling(
        verdict=_to_whom(case),
        rules=["R7"],
        reason=(
            f"peaks of {peak:g}/s fill {at_peak:.0%} of {workers} workers, on average it is"
            f" {usual:.0%}: let a queue level them"
        ),
    )


def _best_effort(case: Case) -> Ruling | None:
    """R8."""
    if case.needs.on_failure is None:
        return None
    return Ruling(
        verdict=_to_whom(case),
        rules=["R8"],
        reason="nobody waits for a value, and losing one now and then is acceptable",
    )


_CASTS = frozenset({Verdict.CAST, Verdict.PUBLISH})


def _with_conditions(case: Case, found: Ruling) -> Ruling:
    """R9: what must be so before a message takes the place of a call."""
    if found.verdict not in _CASTS:
        return found
    terms, needs = case.about.terms, case.needs
    conditions: list[str] = []
    if False in {terms.is_idempotent, needs.idempotent}:
        conditions.append(
            f"{case.about.edge.name} must be harmless when it is delivered twice: once=True with a"
            " Transaction, or idempotent=True"
        )
    if needs.ordering == "total":
        conditions.append(
            "total order needs one consumer at a time: ask whether order per key will do"
        )
    if needs.ordering == "per_key" and terms.is_keyed is False:
        conditions.append("order per key needs key= on its event")
    if conditions:
        found.rules = [*found.rules, "R9"]
        found.conditions = [*found.conditions, *conditions]
    return found


def _seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1.0 else f"{value:.3g} s"


def _percent(value: float) -> str:
    return f"{value * 100:.4g} %"
