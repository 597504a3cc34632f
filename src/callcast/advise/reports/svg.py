"""The picture as SVG: a box for each service, in columns from whoever asks first.

What comes from a column before arrives at a box's left, all else at its right; each arrival has a
row of its own, and its name stands on the line before it. Solid lines are calls, dashed ones
messages, and what the adviser would change is marked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from msgspec import Struct

from callcast.advise.model import Edge, System, Verb
from callcast.advise.reports.picture import picture
from callcast.advise.reports.report import Report

CHARACTER = 7.3
"""Pixels: what a character of a monospaced font of 12 pixels takes."""
ROW, MARGIN = 26, 16
CURVE = 70
"""Pixels between two columns beside the names on the lines: room to bend."""
NAME_MAX = 60
"""Characters of a name that are drawn; the whole of it shows on pointing at it."""
STYLE = (
    "text{font:12px ui-monospace,monospace;fill:#1f2933;paint-order:stroke;stroke:#fff;"
    "stroke-width:3}rect+text{stroke:none}rect{fill:#f4f6f8;stroke:#52606d}"
    "path.line{fill:none;stroke:#52606d;stroke-width:1.5}.message{stroke-dasharray:5 4}"
    "path.change{stroke:#b5482a}text.change{fill:#b5482a}.head{fill:#52606d}"
    ".head.change{fill:#b5482a}"
    "@media(prefers-color-scheme:dark){text{fill:#e4e7eb;stroke:#0d1117}rect{fill:#1f2933;stroke:#9aa5b1}"
    "path.line{stroke:#9aa5b1}.head{fill:#9aa5b1}path.change{stroke:#f0855f}"
    "text.change,.head.change{fill:#f0855f}}"
)


class _Box(Struct):
    """One service."""

    name: str
    column: int
    left: list[Edge] = []
    right: list[Edge] = []
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        return _wide(_cut(self.name)) + 24

    @property
    def height(self) -> float:
        # The first row of the right side is where its own lines begin.
        return ROW * max(len(self.left), 1 + len(self.right))


def svg(report: Report) -> str:
    """One drawing, for light and dark pages; its description is the picture in text."""
    return "\n".join(_Drawing(report).lines()) + "\n"


class _Drawing:
    """Places the boxes, then draws the lines below and the boxes above them."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._labels = _labels(report)
        self._changed = {each.edge for each in report.changes}
        self._boxes = {name: _Box(name, at) for name, at in _columns(report.system).items()}
        for edge in sorted(report.system.interactions):
            callee = self._boxes[edge.callee]
            is_ahead = self._boxes[edge.caller].column < callee.column
            (callee.left if is_ahead else callee.right).append(edge)
        self._width, self._height = self._place()

    def _place(self) -> tuple[float, float]:
        columns: dict[int, list[_Box]] = {}
        for box in self._boxes.values():
            columns.setdefault(box.column, []).append(box)
        tall = [sum(box.height + MARGIN for box in boxes) for boxes in columns.values()]
        height = max(tall, default=0.0) + MARGIN
        x, spare = float(MARGIN), 0
        for _, boxes in sorted(columns.items()):
            x += self._widest(edge for box in boxes for edge in box.left)
            y = (height - sum(box.height + MARGIN for box in boxes) + MARGIN) / 2
            for box in boxes:
                box.x, box.y = x, y
                y += box.height + MARGIN
            right = self._widest(edge for box in boxes for edge in box.right)
            x += max(box.width for box in boxes) + right + CURVE
            spare = 0 if right else CURVE
        for box in self._boxes.values():
            box.left.sort(key=lambda edge: (self._boxes[edge.caller].y, edge))
        return x - spare + MARGIN, height

    def _widest(self, edges: Iterator[Edge]) -> float:
        return max((_wide(self._labels[edge]) for edge in edges), default=0.0)

    def lines(self) -> Iterator[str]:
        system = self._report.system
        size = f"{self._width:.0f} {self._height:.0f}"
        yield f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {size}">'
        yield f"<title>{len(self._boxes)} services, {len(system.interactions)} interactions</title>"
        described = "\n".join(picture(system, self._report.advice))
        yield f"<desc>{escape(described)}</desc>"
        yield f"<style>{STYLE}</style><defs>{_head('head')}{_head('head change')}</defs>"
        # Names last: each stands on a halo that no later line may cross.
        arrows = list(self._arrows())
        yield from (line for line, _ in arrows)
        yield from (label for _, label in arrows)
        for box in self._boxes.values():
            yield f'<rect x="{box.x:.0f}" y="{box.y:.0f}" rx="5" {_size(box)}/>'
            middle = f'x="{box.x + 12:.0f}" y="{box.y + box.height / 2 + 4:.0f}"'
            yield f"<text {middle}>{escape(_cut(box.name))}</text>"
        yield "</svg>"

    def _arrows(self) -> Iterator[tuple[str, str]]:
        for box in self._boxes.values():
            for number, edge in enumerate(box.left):
                yield self._arrow(edge, self._ahead(edge, box.y + ROW * (number + 0.5)))
            for number, edge in enumerate(box.right):
                yield self._arrow(edge, self._back(edge, box.y + ROW * (number + 1.5)))

    def _ahead(self, edge: Edge, y: float) -> tuple[str, str]:
        """The line to the left of a box further on, and where its name stands."""
        here, there = self._boxes[edge.caller], self._boxes[edge.callee]
        start, began = here.x + here.width, here.y + ROW / 2
        straight = there.x - _wide(self._labels[edge]) - MARGIN
        bend = (start + straight) / 2
        path = (
            f"M{start:.0f} {began:.0f}C{bend:.0f} {began:.0f} {bend:.0f} {y:.0f}"
            f" {straight:.0f} {y:.0f}H{there.x - 2:.0f}"
        )
        return path, f'x="{there.x - 14:.0f}" y="{y - 5:.0f}" text-anchor="end"'

    def _back(self, edge: Edge, y: float) -> tuple[str, str]:
        """The line to the right of a box: from below another's name, or around from beside it."""
        here, there = self._boxes[edge.caller], self._boxes[edge.callee]
        end = there.x + there.width
        straight = end + _wide(self._labels[edge]) + MARGIN
        is_beside = here.column == there.column
        start = here.x + here.width if is_beside else here.x
        began = here.y + (ROW / 2 if is_beside else here.height - 4)
        bend = straight + CURVE / 2 if is_beside else (start + straight) / 2
        path = (
            f"M{start:.0f} {began:.0f}C{bend:.0f} {began:.0f} {bend:.0f} {y:.0f}"
            f" {straight:.0f} {y:.0f}H{end + 2:.0f}"
        )
        return path, f'x="{end + 14:.0f}" y="{y - 5:.0f}"'

    def _arrow(self, edge: Edge, drawn: tuple[str, str]) -> tuple[str, str]:
        """The line, and its name."""
        path, place = drawn
        is_call = self._report.system.interactions[edge].verb is Verb.CALL
        change = " change" if edge in self._changed else ""
        kind = f"line {'call' if is_call else 'message'}{change}"
        head, title = "head-change" if change else "head", escape(str(edge))
        line = f'<path class="{kind}" marker-end="url(#{head})" d="{path}"/>'
        label = f'<text class="label{change}" {place}>{escape(self._labels[edge])}</text>'
        return f"<g><title>{title}</title>{line}</g>", label


def _columns(system: System) -> Mapping[str, int]:
    """Service to how far it is from whoever asks first; of a ring, from its least name."""
    below: dict[str, list[str]] = {}
    asked: set[str] = set()
    for edge in sorted(system.interactions):
        below.setdefault(edge.caller, []).append(edge.callee)
        below.setdefault(edge.callee, [])
        if edge.caller != edge.callee:
            asked.add(edge.callee)
    found: dict[str, int] = {}
    wave = [name for name in below if name not in asked]
    while len(found) < len(below):
        wave = wave or [min(name for name in below if name not in found)]
        depth = 0
        while wave:
            found.update(dict.fromkeys(wave, depth))
            following = (callee for name in wave for callee in below[name])
            wave = [name for name in dict.fromkeys(following) if name not in found]
            depth += 1
    return found


def _labels(report: Report) -> Mapping[Edge, str]:
    """What stands on each line: its name, the verdict if it is another, codes of findings."""
    codes: dict[str, list[str]] = {}
    for each in report.first:
        codes.setdefault(each.edge, []).append(each.code)
    verdicts = {each.edge: f"=> {each.verdict}" for each in report.changes}
    return {
        edge: " ".join(
            (_cut(edge.name), *_some(verdicts.get(edge)), *dict.fromkeys(codes.get(str(edge), ())))
        )
        for edge in report.system.interactions
    }


def _some(word: str | None) -> Sequence[str]:
    return () if word is None else (word,)


def _head(kind: str) -> str:
    name = kind.replace(" ", "-")
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7"'
        f' markerHeight="7" orient="auto"><path class="{kind}" d="M0 0L8 4L0 8z"/></marker>'
    )


def _size(box: _Box) -> str:
    return f'width="{box.width:.0f}" height="{box.height:.0f}"'


def _cut(name: str) -> str:
    return name if len(name) <= NAME_MAX else f"{name[: NAME_MAX - 1]}\u2026"


def _wide(text: str) -> float:
    return len(text) * CHARACTER
