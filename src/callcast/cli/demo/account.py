"""The account: what became of every order, from the client's log and the services' ledgers. Pure.

| number       | counts distinct orders that                                          |
|--------------|----------------------------------------------------------------------|
| `placed`     | the client sent; all three of the next                               |
| `confirmed`  | it was told are taken; all three of the next but one line            |
| `refused`    | it was told are not taken; nothing may be left of them               |
| `unanswered` | it heard nothing of                                                  |
| `fulfilled`  | are confirmed and have a parcel and a mail                           |
| `dead`       | are confirmed, not fulfilled, and in the dead letters                |
| `lost`       | are confirmed, and neither: 0, or something is broken                |
| `twice`      | have a second row in a ledger, each ledger counted: 0, or it is broken |
| `redriven`   | were in the dead letters and were sent again                         |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

Answer: TypeAlias = Literal["confirmed", "refused", "unanswered"]

NAMED_MAX = 5
"""Orders named in one sentence."""


class Fault(Struct, frozen=True):
    """What was broken, when (seconds from the start), and how much work it hit."""

    kind: str
    at: float
    in_flight: int


class Evidence(Struct, frozen=True, kw_only=True):
    """What the client knows, and the rows of all ledgers, as they are.

    An attempt is an order's id, a dot and something unique: an order that was tried again has
    several, and all but one of them must be undone.
    """

    answers: Mapping[str, Answer]
    """By order."""
    orders: Sequence[str] = ()
    """Order ids, a row each; so in parcels and mails."""
    holds: Sequence[str] = ()
    """Attempts; so in charges, and in what was released or voided."""
    released: Sequence[str] = ()
    charges: Sequence[str] = ()
    voided: Sequence[str] = ()
    parcels: Sequence[str] = ()
    mails: Sequence[str] = ()
    dead: Collection[str] = ()
    """Orders in the dead letters."""
    redriven: Collection[str] = ()
    faults: Sequence[Fault] = ()
    missed: Sequence[str] = ()
    """Sentences about faults that did not do what they should have done."""


class Account(Struct, frozen=True):
    """The numbers, as ``-o json`` prints them."""

    placed: int
    confirmed: int
    refused: int
    unanswered: int
    fulfilled: int
    dead: int
    redriven: int
    lost: int
    twice: int
    faults: Sequence[Fault]


class Verdict(Struct, frozen=True):
    """The numbers, and in sentences what is wrong; nothing is when there are none."""

    account: Account
    problems: Sequence[str]


def judge(evidence: Evidence) -> Verdict:
    """Count, and find what is wrong."""
    answered = Counter(evidence.answers.values())
    confirmed = {order for order, answer in evidence.answers.items() if answer == "confirmed"}
    fulfilled = confirmed & _whole(evidence)
    dead = (confirmed - fulfilled) & set(evidence.dead)
    repeated = list(_repeated(evidence))
    account = Account(
        placed=len(evidence.answers),
        confirmed=len(confirmed),
        refused=answered["refused"],
        unanswered=answered["unanswered"],
        fulfilled=len(fulfilled),
        dead=len(dead),
        redriven=len(set(evidence.redriven)),
        lost=len(confirmed - fulfilled - dead),
        twice=len(repeated),
        faults=evidence.faults,
    )
    return Verdict(account, [*_problems(evidence, confirmed, repeated), *evidence.missed])


def _whole(evidence: Evidence) -> set[str]:
    """Orders with everything that was promised."""
    return set(evidence.parcels) & set(evidence.mails)


def _live(attempts: Iterable[str], undone: Collection[str]) -> Sequence[str]:
    """The orders of the attempts that were not undone."""
    gone = set(undone)
    return [attempt.rpartition(".")[0] for attempt in attempts if attempt not in gone]


def _repeated(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Ledger and id of each effect that is there more than once, an undo's effect too."""
    ledgers = {
        "orders": evidence.orders,
        "reservations": evidence.holds,
        "releases": evidence.released,
        "charges": evidence.charges,
        "voids": evidence.voided,
        "parcels": evidence.parcels,
        "mails": evidence.mails,
        # Two attempts of one order are two effects unless one of them is undone.
        "reserved orders": _live(set(evidence.holds), evidence.released),
        "charged orders": _live(set(evidence.charges), evidence.voided),
    }
    for ledger, rows in ledgers.items():
        for row, count in Counter(rows).items():
            if count > 1:
                yield ledger, row


def _problems(
    evidence: Evidence, confirmed: Collection[str], repeated: Sequence[tuple[str, str]]
) -> Iterator[str]:
    written = set(evidence.orders)
    taken = written | set(confirmed)
    refused = {order for order, answer in evidence.answers.items() if answer == "refused"}
    held = set(_live(evidence.holds, evidence.released))
    charged = set(_live(evidence.charges, evidence.voided))
    settled = _whole(evidence) | set(evidence.dead)
    yield from _said("lost: taken, but neither fulfilled nor in the dead letters", taken - settled)
    yield from _said("a second effect", {f"{row} ({ledger})" for ledger, row in repeated})
    yield from _said("confirmed, but not in the orders ledger", set(confirmed) - written)
    yield from _said("refused, but in the orders ledger", refused & written)
    yield from _said("a reservation is left of an order that was not taken", held - written)
    yield from _said("a charge is left of an order that was not taken", charged - written)
    yield from _said("taken without a reservation", written - held)
    yield from _said("taken without a charge", written - charged)
    for fault in evidence.faults:
        if not fault.in_flight:
            yield f"the fault {fault.kind!r} hit nothing: it proves nothing"


def _said(what: str, orders: Collection[str]) -> Iterator[str]:
    if orders:
        named = sorted(orders)[:NAMED_MAX]
        more = len(orders) - len(named)
        yield f"{what}: {', '.join(named)}{f' and {more} more' if more else ''}"
