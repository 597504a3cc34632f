"""What the metadata of a committed offset says of the offsets from there on.

Kafka keeps one offset for each partition and group, and up to 4,096 bytes of text beside it. The
text is ``c1 HORIZON RUN,RUN,...``, lengths counted from the committed offset:

- below the horizon anything may be out with a worker: if that dies, all of it was a crash;
- a run is a length and what is so about these offsets, in letters: ``s`` settled, ``o`` out with a
  worker, ``c2`` two crashes, ``r1`` put off once, ``d1764000000.5`` due at that wall-clock time.

So settled offsets beyond a gap are remembered, crashes are counted, and a held head keeps its round
and its due time, without a record for any message.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

TEXT_MAX = 4_000
"""Characters; the server's limit is 4,096 bytes (``offset.metadata.max.bytes``)."""

_PREFIX = "c1 "
_RUN = re.compile(r"(\d{1,18})(s?)(o?)(?:c(\d{1,9}))?(?:r(\d{1,9}))?(?:d(\d{1,12}(?:\.\d{1,9})?))?")


class Mark(Struct, frozen=True, gc=False):
    """What is so about one offset."""

    is_settled: bool = False
    is_out: bool = False
    crashes: int = 0
    round: int = 0
    due: float = 0.0
    """Wall-clock time; 0 for at once."""


PLAIN = Mark()
SETTLED = Mark(is_settled=True)


class Run(Struct, frozen=True, gc=False):
    """So many offsets in a row of which the same is so."""

    length: int
    mark: Mark


class Marks:
    """What was noted of the offsets behind a committed one."""

    def __init__(self, base: int, horizon: int = 0, runs: Sequence[Run] = ()) -> None:
        self.base = base
        self._horizon = base + horizon
        self._starts: list[int] = []
        self._marks: list[Mark] = []
        for run in runs:
            self._starts.append(base)
            self._marks.append(run.mark)
            base += run.length
        self.end: int = max(base, self._horizon)
        """From here on nothing is noted."""
        self._starts.append(base)
        self._marks.append(PLAIN)

    def at(self, offset: int) -> Mark:
        """What is so about this offset once its worker is gone: what was out has crashed."""
        index = bisect.bisect_right(self._starts, offset) - 1
        mark = self._marks[index] if index >= 0 else PLAIN
        if mark.is_settled:
            return mark
        was_out = mark.is_out or (offset < self._horizon and not mark.due)
        return Mark(crashes=mark.crashes + was_out, round=mark.round, due=mark.due)

    def unsettled(self, first: int, end: int) -> tuple[int, int]:
        """How many offsets from `first` to before `end` are not settled; how many of them out."""
        count = max(0, end - first)
        out = 0
        starts = self._starts
        for start, stop, mark in zip(starts, starts[1:], self._marks, strict=False):
            covered = max(0, min(stop, end) - max(start, first))
            count -= covered if mark.is_settled else 0
            out += covered if mark.is_out else 0
        return count, out

    def first_unsettled(self, first: int) -> int:
        """The first offset from there on that is not settled."""
        starts = self._starts
        for start, stop, mark in zip(starts, starts[1:], self._marks, strict=False):
            if mark.is_settled and start <= first < stop:
                first = stop
        return first


def encode(horizon: int, runs: Iterable[Run]) -> str:
    """The text; what does not fit is left out, first what only saves a repetition."""
    runs = list(runs)
    text = _write(horizon, runs)
    if len(text) > TEXT_MAX:
        unsettled = [Run(run.length, PLAIN if run.mark.is_settled else run.mark) for run in runs]
        text = _write(horizon, joined(unsettled))
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX].rpartition(",")[0]


def decode(base: int, text: str | None) -> Marks:
    """The marks of a committed offset; none where the text is not ours."""
    if not text or not text.startswith(_PREFIX):
        return Marks(base)
    horizon, _, rest = text.removeprefix(_PREFIX).partition(" ")
    runs: list[Run] = []
    for part in filter(None, rest.split(",")):
        found = _RUN.fullmatch(part)
        if found is None:
            break  # of a later version: what stands before it is still so
        length, settled, out, crashes, round_, due = found.groups()
        mark = Mark(bool(settled), bool(out), int(crashes or 0), int(round_ or 0), float(due or 0))
        runs.append(Run(int(length), mark))
    return Marks(base, int(horizon) if horizon.isdecimal() else 0, runs)


def joined(runs: Iterable[Run]) -> list[Run]:
    """The same with neighbours that are alike made one, and nothing plain at the end."""
    joint: list[Run] = []
    for run in runs:
        if joint and joint[-1].mark == run.mark:
            joint[-1] = Run(joint[-1].length + run.length, run.mark)
        elif run.length:
            joint.append(run)
    if joint and joint[-1].mark == PLAIN:
        joint.pop()
    return joint


def _write(horizon: int, runs: Sequence[Run]) -> str:
    if not horizon and not runs:
        return ""
    return f"{_PREFIX}{horizon} {','.join(map(_word, runs))}"


def _word(run: Run) -> str:
    mark = run.mark
    return "".join(
        (
            str(run.length),
            "s" if mark.is_settled else "",
            "o" if mark.is_out else "",
            f"c{mark.crashes}" if mark.crashes else "",
            f"r{mark.round}" if mark.round else "",
            f"d{mark.due:.3f}" if mark.due else "",
        )
    )
