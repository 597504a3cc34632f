"""The system as a tree below each entry: solid lines are calls, dashed ones messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from callcast.advise import paths
from callcast.advise.model import Edge, Handler, System, Verb
from callcast.advise.verdicts import Advice

SOLID, DASHED = "──", "┄┄"


def picture(system: System, advised: Sequence[Advice] = ()) -> Sequence[str]:
    """One line for each interaction, with the verdict where it is to be changed."""
    drawing = _Drawing(system, advised)
    lines: list[str] = []
    for entry in paths.entries(system) or list(system.handlers.values()):
        lines.append(f"{entry.service}  {entry.name}")
        lines.extend(drawing.below(entry))
    for edge in sorted(system.interactions):
        if edge not in drawing.drawn:
            lines.extend((edge.caller, drawing.line(edge, "└")))
    return lines


class _Drawing:
    """Draws each interaction in full once; where it comes again it says so."""

    def __init__(self, system: System, advised: Sequence[Advice]) -> None:
        self._system = system
        self._verdicts = {each.edge: each for each in advised}
        self.drawn: set[Edge] = set()

    def below(self, handler: Handler) -> Iterator[str]:
        """The lines of all that a handler does."""
        for number, step in enumerate(handler.steps):
            edge, is_last = step.edge, number == len(handler.steps) - 1
            is_new = edge not in self.drawn
            self.drawn.add(edge)
            line = self.line(edge, "└" if is_last else "├")
            yield line if is_new else f"{line}  (as above)"
            below = self._system.handlers.get((edge.callee, edge.name))
            if below is not None and is_new:
                bar = "    " if is_last else "│   "
                yield from (bar + each for each in self.below(below))

    def line(self, edge: Edge, corner: str) -> str:
        """One interaction."""
        about, said = self._system.interactions[edge], self._verdicts.get(edge)
        stroke = SOLID if about.verb is Verb.CALL else DASHED
        verdict = ""
        if said is not None and said.is_change:
            verdict = f"   => {said.verdict} ({', '.join(said.rules)})"
        return f"{corner}{stroke}> {edge.callee}  {edge.name}  [{about.verb}]{verdict}"
