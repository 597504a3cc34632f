"""A JSON document of any size, cut into the objects of its outermost lists.

All three formats are lists of something at heart: OTLP of resources, Jaeger of traces, Zipkin of
spans or of lists of them. Only one such part is held at a time, so a file of 1 GB needs no more
memory than its largest part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

PART_MAX_BYTES = 67_108_864
"""A part that is larger is left out, and counted."""
DEEP_MAX = 1_000
"""What is nested deeper is none of the three formats."""

_TEXT_OR_ITS_BEGIN = rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
_SIGNS = re.compile(_TEXT_OR_ITS_BEGIN + rb"|[{}\[\]]", re.DOTALL)
_LIST, _OBJECT, _TEXT = b'[{"'
_OPEN, _CLOSED = frozenset(b"[{"), frozenset(b"]}")


class Cut:
    """Iterates over the parts of the chunks that are handed in, and counts what it leaves out."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._above: list[int] = []  # what is open around the place that is read
        self._held = b""
        self._seen = 0  # of what is held, so much has been looked at
        self._next_look = 0  # no look before so much is held: a long text is looked at seldom
        self._depth = 0  # objects and lists that are open inside of the part; 0 is outside
        self._began = 0  # where in what is held the part begins
        self._is_skipped = False
        self.oversized: int = 0
        self.is_cut_off: bool = False
        """Whether the document ended in the middle of something."""

    def __iter__(self) -> Iterator[bytes]:
        """The bytes of each part."""
        for chunk in self._chunks:
            self._held += chunk
            if len(self._held) >= self._next_look:
                yield from self._look()
        yield from self._look()
        self.is_cut_off = bool(self._depth or self._above or self._next_look)

    def _look(self) -> Iterator[bytes]:
        """The parts that end within what is held; what is before the next one is let go."""
        held, self._next_look = self._held, 0
        for sign in _SIGNS.finditer(held, self._seen):
            byte = held[sign.start()]
            if byte == _TEXT and sign.end() == len(held) and not _is_whole(sign.group()):
                self._next_look = 2 * len(held) - self._seen  # its rest is in the next chunk
                break
            self._seen = sign.end()
            if self._depth:
                self._depth += (byte in _OPEN) - (byte in _CLOSED)
                if not self._depth:
                    yield from () if self._is_skipped else (held[self._began : self._seen],)
                    self._is_skipped = False
            else:
                self._outside(byte, sign.start())
        self._let_go()

    def _outside(self, byte: int, at: int) -> None:
        """A sign that is in no part; one may begin with it."""
        if byte in _CLOSED:
            del self._above[-1:]
        elif byte == _OBJECT and self._above[-1:] == [_LIST]:
            self._began, self._depth = at, 1
        elif byte in _OPEN and len(self._above) < DEEP_MAX:
            self._above.append(byte)

    def _let_go(self) -> None:
        if self._depth and not self._is_skipped and len(self._held) > PART_MAX_BYTES:
            self._is_skipped = True
            self.oversized += 1
        keep = self._began if self._depth and not self._is_skipped else self._seen
        self._held = self._held[keep:]
        self._seen -= keep
        self._next_look = max(0, self._next_look - keep)
        self._began = 0


def _is_whole(text: bytes) -> bool:
    """Whether a text that begins with a quotation mark has its last one."""
    inner = text[1:-1]
    escapes = len(inner) - len(inner.rstrip(b"\\"))
    return len(text) > 1 and text.endswith(b'"') and escapes % 2 == 0
