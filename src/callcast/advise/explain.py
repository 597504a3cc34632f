"""What each rule, formula and finding is about, for ``callcast advise --explain``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from callcast.core.errors import Misuse

TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "R1": (
            "A value that is needed now, and is there in time: call it.\n"
            "If the response is a value, its p99 is within the budget (needed_within, else "
            "the deadline), and the answers seen reach the objective with their whole "
            "interval (F12), it is a CALL."
        ),
        "R2": (
            "A value that takes longer than anybody may wait: cast, and answer later.\n"
            "If the work or the p99 is longer than the budget or the caller's deadline: "
            "CAST with reply_to. At the edge to the outside: 202 with a Location and Retry-"
            "After."
        ),
        "R3": (
            "A value that is away too often, and one of before will do: call with a "
            "fallback.\n"
            "If the answers seen do not reach the objective, and consistency is eventual or"
            " on_failure is degrade: CALL with a cached or default value, or a local copy "
            "fed by events."
        ),
        "R4": (
            "Strong consistency: ask the owner; several owners are a saga.\n"
            "Inside one owner a call is the only honest way. Where one request changes two "
            "owners or more, each step needs one that undoes it: SAGA. Ask first whether "
            "the boundary is in the right place."
        ),
        "R5": (
            "Nobody waits, and it must not be lost: the outbox.\n"
            "Written in the same transaction as what it tells of, it leaves after the "
            "commit and never without it: CAST, or PUBLISH where who listens is not one "
            "known service."
        ),
        "R6": (
            "Several listen, or nobody knows who: publish.\n"
            "The publisher says what was so; a new listener changes nothing at the "
            "publisher."
        ),
        "R7": (
            "Peaks fill the workers, on average they are idle: let a queue level them.\n"
            "If the peak's utilisation (F10) is 0.8 or more, the mean's below 0.6, and no "
            "value is needed: CAST, sized by F9."
        ),
        "R8": (
            "Nobody waits, and losing one now and then is acceptable: cast.\n"
            "Without an outbox: what a crash takes along is not sent again."
        ),
        "R9": (
            "Conditions, and what is too thin to decide.\n"
            "A message may be delivered twice and out of order: what is not idempotent, or "
            "needs total order, says so first. On thin data (F12) the answer is UNDECIDED."
        ),
        "R10": (
            "Over a queue today, though R1 holds: you over-engineered, call it.\n"
            "Two queues and a correlation id for an answer that is there in milliseconds "
            "cost latency, a duty for dead letters, and everybody's time."
        ),
        "F1": (
            "Chain availability: the product over unique hard dependencies; shared ones "
            "count once.\n"
            "Treynor, Dahlin, Rau, Beyer: The Calculus of Service Availability, ACM Queue "
            "2017."
        ),
        "F2": (
            "Soft edges: used with probability q, 1 - q(1 - a); with a fallback f, a + (1 -"
            " a)f; n replicas, 1 - (1 - a)^n.\n"
            "By probability."
        ),
        "F3": (
            "Retries mend what is transient alone: a = h(1 - t) becomes h(1 - t^m).\n"
            "Derived; no retry mends an outage."
        ),
        "F4": (
            "A message takes the callee out of the product; what is left is the broker, or "
            "nothing with an outbox.\n"
            "Derived."
        ),
        "F5": (
            "For a target T with n equal dependencies each needs 1 - (1 - T)/n: the rule of"
            " the extra nine.\n"
            "As F1."
        ),
        "F6": (
            "Attempts multiply over layers: the worst is the product, with a budget b at "
            "most (1 + b)^d.\n"
            "Google SRE book, Addressing Cascading Failures; Finagle's RetryBudget."
        ),
        "F7": (
            "A handler may take its own time, plus attempts times timeout plus back-off of "
            "what it calls in sequence; its caller must wait longer.\n"
            "gRPC, Deadlines."
        ),
        "F8": (
            "Of n answers one is slow with 1 - (1 - p)^n; each of n hops must keep the "
            "quantile 0.99^(1/n).\n"
            "Dean, Barroso: The Tail at Scale, CACM 2013."
        ),
        "F9": (
            "In flight: L = lambda W. After an outage T: backlog lambda T, drained in "
            "lambda T / (c mu - lambda).\n"
            "Little 1961."
        ),
        "F10": ("Utilisation lambda S / c below 0.8; waits by Erlang C.\nErlang 1917."),
        "F11": (
            "Dead letters a second: lambda(p_poison + p^m); in an outage beyond the "
            "retries' horizon lambda max(0, T - H).\n"
            "Derived."
        ),
        "F12": (
            "Wilson's interval of a measured share; no advice flips unless the interval "
            "clears the threshold.\n"
            "Wilson: Probable Inference, JASA 1927."
        ),
        "A01": (
            "A path is available less than its objective.\n"
            "F1 to F4 over all that its answer waits for."
        ),
        "A02": (
            "Timeout inversion: the caller gives up before its callee must.\n"
            "F7: work goes on that nobody waits for, and a retry starts it again."
        ),
        "A03": ("More than ten attempts of the last of a path for one request.\nF6."),
        "A04": (
            "Two layers of one path retry.\n"
            "Retries multiply; keep them at the layer that knows the failure. Calls of this"
            " package give way to a caller that retries."
        ),
        "A05": (
            "A call whose result nobody uses.\n"
            "The caller waits, and fails with its callee, for nothing: cast it."
        ),
        "A06": (
            "One fact told to several services by calls, one by one.\n"
            "Publish an event: each failure is one listener's, and a new listener changes "
            "nothing."
        ),
        "A07": (
            "A message sent beside a database transaction, without an outbox.\n"
            "A crash between the two leaves one without the other: the dual write."
        ),
        "A08": (
            "A call is retried and is not idempotent.\n"
            "A lost answer makes its effect happen twice: give it a key (once=True) or say "
            "that it is harmless."
        ),
        "A09": ("A call without a timeout.\nA callee that hangs takes its callers along."),
        "A10": (
            "A subscription without an end of attempts, or without dead letters.\n"
            "One poison message blocks it, or is lost."
        ),
        "A11": (
            "Messages are dead before anybody can have mended what failed.\n"
            "F11: the horizon of the retries is shorter than the time to repair."
        ),
        "A12": (
            "Workers that are busy more than 80 %.\n"
            "F10: waits grow steeply, and without end at 100 %."
        ),
        "A13": (
            "The broker forgets before an outage is over.\n"
            "Retention is shorter than the outage that is to be tolerated."
        ),
        "A14": ("A fast read over a queue.\nCall it (R10)."),
        "A15": (
            "Services that call each other in a ring.\n"
            "Each is up only when all are; under load they wait for each other's slots."
        ),
        "A16": ("Many calls to one callee for one request.\nAsk for all at once."),
        "A17": ("Order matters, and nothing keeps it.\nA key handles one at a time, in order."),
        "A18": ("A step of a saga without compensation.\nWhat is half done stays so."),
        "A19": ("Dead letters that nobody watches.\nAn alert and an owner."),
        "A20": ("Too little data.\nBelow 30 samples a share says nothing (F12)."),
    }
)
"""Code to its title and, in the lines below, what it says and from where it is."""


def explained(code: str) -> str:
    """The text of one; raises `Misuse` for a code that there is not."""
    found = TEXTS.get(code.upper())
    if found is None:
        near = ", ".join(get_close_matches(code.upper(), TEXTS, n=3)) or "R1 to R10, A01 to A20"
        raise Misuse(f"{code!r} is no rule, formula or finding: try {near}")
    return f"{code.upper()}  {found}"
