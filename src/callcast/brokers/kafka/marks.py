"""What the metadata of a committed offset says of the offsets from there on.

Kafka keeps one offset for each partition and group, and up to 4,096 bytes of text beside it. The
text is ``c1 HORIZON RUN,RUN,...``, lengths counted from the committed offset; a last word ``h3``
says that the partition moves and who had it still finishes what is out, said for the third time:

- below the horizon anything may be out with a worker: if that dies, all of it was a crash;
- a run is a length and what is so about these offsets, in letters: ``s`` settled, ``o`` out with a
  worker, ``c2`` two crashes, ``r1`` put off once, ``d17640000005`` due at that wall-clock time in
  tenths of a second, ``d+12`` and ``d-3`` so many tenths after and before the due time noted last.

So settled offsets beyond a gap are remembered, crashes are counted, and a held head keeps its round
and its due time, without a record for any message. What does not fit is told of in larger pieces,
so that what is settled may be repeated and what waits may be late, but nothing is early, and no
crash is forgotten.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

TEXT_MAX = 4_000
"""Characters; the server's limit is 4,096 bytes (``offset.metadata.max.bytes``)."""

_PREFIX = "c1 "
_HANDED_ON = re.compile(r"h(\d{1,9})")
_RUN = re.compile(r"(\d{1,18})(s?)(o?)(?:c(\d{1,9}))?(?:r(\d{1,9}))?(?:d([+-]?)(\d{1,12}))?")
_TENTHS = 10


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

    def __init__(
        self, base: int, horizon: int = 0, runs: Sequence[Run] = (), *, handed_on: int = 0
    ) -> None:
        self.base = base
        self.handed_on = handed_on
        """How often the member before has said that it finishes what is out; 0 once it has."""
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
        if offset >= self.end:
            return PLAIN
        index = bisect.bisect_right(self._starts, offset) - 1
        mark = self._marks[index] if index >= 0 else PLAIN
        if mark.is_settled:
            return mark
        was_out = mark.is_out or (offset < self._horizon and not mark.due)
        return Mark(crashes=mark.crashes + was_out, round=mark.round, due=mark.due)

    def cut(self, end: int) -> None:
        """Note where the log ends: a horizon reaches further, but nothing there can have been out.

        What is published there later is none of what a worker died with.
        """
        self.end = min(self.end, max(self.base, end))

    def rest(self, first: int) -> Iterator[Run]:
        """What `at` says of the offsets from there on, to be noted again."""
        at = first
        while at < self.end:
            index = bisect.bisect_right(self._starts, at)
            stops = (*self._starts[index : index + 1], self._horizon, self.end)
            stop = min(stop for stop in stops if stop > at)
            yield Run(stop - at, self.at(at))
            at = stop

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


def encode(horizon: int, runs: Iterable[Run], *, handed_on: int = 0) -> str:
    """The text, at most `TEXT_MAX` of it, and the word that it is handed on."""
    text = _fitting(horizon, list(runs))
    if not handed_on:
        return text
    comma = "," if text and not text.endswith(" ") else ""
    return f"{text or f'{_PREFIX}0 '}{comma}h{handed_on}"


def _fitting(horizon: int, runs: list[Run]) -> str:
    text = _write(horizon, runs)
    while len(text) > TEXT_MAX and len(fewer := joined(_coarser(runs))) < len(runs):
        runs = fewer
        text = _write(horizon, runs)
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX].rpartition(",")[0]


def decode(base: int, text: str | None) -> Marks:
    """The marks of a committed offset; none where the text is not ours."""
    if not text or not text.startswith(_PREFIX):
        return Marks(base)
    horizon, _, rest = text.removeprefix(_PREFIX).partition(" ")
    runs: list[Run] = []
    tenths = handed_on = 0
    for part in filter(None, rest.split(",")):
        found = _RUN.fullmatch(part)
        if found is None:
            last = _HANDED_ON.fullmatch(part)
            handed_on = int(last[1]) if last else 0
            break  # of a later version: what stands before it is still so
        length, settled, out, crashes, round_, sign, due = found.groups()
        if due:
            tenths = int(sign + due) + (tenths if sign else 0)
        at = tenths / _TENTHS if due else 0.0
        mark = Mark(bool(settled), bool(out), int(crashes or 0), int(round_ or 0), at)
        runs.append(Run(int(length), mark))
    span = int(horizon) if horizon.isdecimal() else 0
    return Marks(base, span, runs, handed_on=handed_on)


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


def _coarser(runs: Iterable[Run]) -> list[Run]:
    """Pairs of neighbours as one; what has crashed or is out stays by itself."""
    coarse: list[Run] = []
    is_single = False
    for run in runs:
        if is_single and not (_may_kill(coarse[-1].mark) or _may_kill(run.mark)):
            coarse[-1] = _together(coarse[-1], run)
            is_single = False
        else:
            coarse.append(run)
            is_single = True
    return coarse


def _may_kill(mark: Mark) -> bool:
    return mark.is_out or mark.crashes > 0


def _together(one: Run, other: Run) -> Run:
    """Both as late as the later, and none nearer to its last round than it is."""
    marks = (one.mark, other.mark)
    round_ = min(1, max(mark.round for mark in marks))
    mark = Mark(
        is_settled=all(mark.is_settled for mark in marks),
        round=round_,
        due=max(mark.due for mark in marks),
    )
    return Run(one.length + other.length, mark)


def _write(horizon: int, runs: Sequence[Run]) -> str:
    if not horizon and not runs:
        return ""
    words: list[str] = []
    tenths = 0
    for run in runs:
        due = ""
        if run.mark.due:
            before, tenths = tenths, _tenths(run.mark.due)
            due = f"d{tenths - before:+d}" if before else f"d{tenths}"
        words.append(f"{_word(run)}{due}")
    return f"{_PREFIX}{horizon} {','.join(words)}"


def _tenths(seconds: float) -> int:
    """Rounded up, so that it is never early; a float's last digits are no tenth."""
    return math.ceil(round(seconds * _TENTHS, 5))


def _word(run: Run) -> str:
    mark = run.mark
    return "".join(
        (
            str(run.length),
            "s" if mark.is_settled else "",
            "o" if mark.is_out else "",
            f"c{mark.crashes}" if mark.crashes else "",
            f"r{mark.round}" if mark.round else "",
        )
    )
