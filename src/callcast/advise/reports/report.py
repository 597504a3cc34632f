"""All that one run of the adviser says, whatever it is written in."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from callcast.advise import paths
from callcast.advise.advice import advice
from callcast.advise.budgets import Budget, budgets
from callcast.advise.check import Checked
from callcast.advise.findings import Finding, Sorted
from callcast.advise.model import Edge, System
from callcast.advise.verdicts import ASSUMPTIONS, Advice, Numbers
from callcast.advise.whatif import numbers, what_if


class Supposed(Struct, frozen=True, kw_only=True):
    """One what-if: the numbers of each entry before and after."""

    text: str
    edge: Edge
    entries: Sequence[tuple[str, Numbers, Numbers]]


class Report(Struct, frozen=True, kw_only=True):
    """The whole."""

    system: System
    slo: float
    """Percent."""
    advice: Sequence[Advice]
    findings: Sorted
    known: Sequence[Finding] = ()
    """Findings of the baseline: they were there before, and block nothing."""
    budgets: Sequence[Budget]
    supposed: Sequence[Supposed] = ()
    checked: Sequence[Checked] = ()

    @property
    def first(self) -> Sequence[Finding]:
        """What to mend first: errors before warnings before notes."""
        order = ("error", "warning", "note")
        return sorted(self.findings.open, key=lambda each: order.index(each.severity))

    @property
    def changes(self) -> Sequence[Advice]:
        """Advice to make something otherwise than it is."""
        return [each for each in self.advice if each.is_change]

    @property
    def assumptions(self) -> Sequence[str]:
        """What all numbers rest on."""
        broker = self.system.broker_availability
        said = [*ASSUMPTIONS]
        if broker is None:
            said.append(
                "the broker is taken to be always there; say [assume] broker in advice.toml"
            )
        return [*said, f"{self.system.traces} traces in {self.system.window:.0f} s were seen"]


def supposed(system: System, text: str) -> Supposed:
    """The numbers of one what-if; raises `Misuse` for an edge that there is not."""
    then, edge = what_if(system, text)
    return Supposed(
        text=text,
        edge=edge,
        entries=[
            (f"{entry.service}:{entry.name}", numbers(system, entry), numbers(then, entry))
            for entry in paths.entries(system)
        ],
    )


def reported(
    system: System,
    *,
    slo: float,
    findings: Sorted,
    known: Sequence[Finding] = (),
    suppose: Sequence[str] = (),
    checked: Sequence[Checked] = (),
) -> Report:
    """Draw it up."""
    tables = {
        each.edge: each
        for entry in paths.entries(system)
        for each in budgets(system, entry, slo / 100.0)
    }
    return Report(
        system=system,
        slo=slo,
        advice=advice(system, slo),
        findings=findings,
        known=known,
        budgets=list(tables.values()),
        supposed=[supposed(system, text) for text in suppose],
        checked=checked,
    )
