"""Advice: the rules' verdict with what it brings, what it costs, and what to type."""

from __future__ import annotations

from collections.abc import Sequence

from callcast.advise import whatif
from callcast.advise.model import Interaction, System, Verb, Verdict
from callcast.advise.rules import SLO, Ruling, ruling
from callcast.advise.verdicts import STAYS, Advice, Numbers

OF_VERDICT = {
    Verdict.CALL: Verb.CALL,
    Verdict.CAST: Verb.CAST,
    Verdict.PUBLISH: Verb.PUBLISH,
}

DEDUPE = (
    "delivery is at least once: the handler takes a Transaction, or is harmless when it runs twice"
)
DEAD_LETTERS = "somebody owns its dead letters, and an alert says when they grow"
LATER = "say to users what is not yet so: 'your order is taken', not 'your parcel is packed'"
ANSWER = "the asker keeps what it asked, and takes the answer as a message"
UNDO = "each step has one that undoes it, and both may run twice"
STALE = "decide how old a value may be, and show that it is old"


def advice(system: System, slo: float = SLO) -> Sequence[Advice]:
    """One for each interaction, by name; `slo` is a percentage."""
    return [
        _advised(system, system.interactions[edge], slo) for edge in sorted(system.interactions)
    ]


def _advised(system: System, about: Interaction, slo: float) -> Advice:
    found = ruling(system, about, slo)
    before, after = _numbers(system, about, found)
    is_new = found.verdict.value != STAYS[about.verb]
    return Advice(
        edge=about.edge,
        verb=about.verb,
        verdict=found.verdict,
        rules=tuple(found.rules),
        reason=found.reason,
        interval=found.interval,
        before=before,
        after=after,
        duties=tuple(_duties(found)) if is_new else (),
        change=_change(about, found) if is_new or found.has_fallback else "",
        conditions=tuple(found.conditions),
        questions=tuple(found.questions),
    )


def _numbers(
    system: System, about: Interaction, found: Ruling
) -> tuple[Numbers | None, Numbers | None]:
    """Of the first entry that comes by here; None where nothing is known to come by."""
    over = whatif.entries_over(system, about.edge)
    if not over:
        return None, None
    before = whatif.numbers(system, over[0])
    verb = OF_VERDICT.get(found.verdict)
    if verb is None or verb is about.verb:
        return before, before
    then = whatif.changed(system, about.edge, verb, has_outbox=found.has_outbox or None)
    return before, whatif.numbers(then, over[0])


def _duties(found: Ruling) -> list[str]:
    if found.verdict is Verdict.SAGA:
        return [UNDO, LATER]
    if found.verdict in {Verdict.CAST, Verdict.PUBLISH}:
        return [DEDUPE, DEAD_LETTERS, ANSWER if found.has_reply else LATER]
    return [STALE] if found.has_fallback else []


def _change(about: Interaction, found: Ruling) -> str:
    """The line to write, in the words of the package."""
    name, sender = constant(about.edge.name), "tx" if found.has_outbox else "bus"
    line = {
        Verdict.CALL: f"answer = await bus.call({name}, request)",
        Verdict.CAST: f"await {sender}.cast({name}, request)",
        Verdict.PUBLISH: f"await {sender}.publish({name}, fact)",
        Verdict.SAGA: f"undo.push_async_callback(bus.cast, UNDO_{name}, request.id, now=True)",
        Verdict.UNDECIDED: "",
    }[found.verdict]
    if found.has_fallback:
        line += "  # except (NotSent, Unanswered): the last value that was good"
    return (
        line.replace("request)", f"request, reply_to={name}_ANSWERED)") if found.has_reply else line
    )


def constant(name: str) -> str:
    """How a contract of that name would be called in code: ``mail.send`` is ``MAIL_SEND``."""
    return "".join(sign if sign.isalnum() else "_" for sign in name).strip("_").upper()
