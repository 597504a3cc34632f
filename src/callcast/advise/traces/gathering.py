"""Spans put together to traces, wherever in the input they are, in bounded memory."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from callcast.advise.model import Span

OPEN_MAX = 200_000
"""Spans that wait for the rest of their traces; beyond it the oldest trace is taken as it is."""
ENDED_MAX = 100_000
"""Traces that are remembered to have been taken: what comes late for them is half a trace."""


def traces(
    spans: Iterable[Span], dropped: Counter[str], open_max: int = OPEN_MAX
) -> Iterator[Sequence[Span]]:
    """The spans of each trace, each once; what is repeated or late is counted in `dropped`."""
    waiting: OrderedDict[str, dict[str, Span]] = OrderedDict()
    ended: OrderedDict[str, None] = OrderedDict()
    held = 0
    for span in spans:
        of_trace = waiting.get(span.trace_id)
        if of_trace is None:
            of_trace = waiting[span.trace_id] = {}
            if span.trace_id in ended:
                dropped["the rest of a trace that came much later: taken apart from it"] += 1
        if span.span_id in of_trace:
            dropped["a span that was there already"] += 1
            continue
        of_trace[span.span_id] = span
        held += 1
        while held > open_max:
            name, oldest = waiting.popitem(last=False)
            held -= len(oldest)
            ended[name] = None
            if len(ended) > ENDED_MAX:
                ended.popitem(last=False)
            yield list(oldest.values())
    while waiting:
        yield list(waiting.popitem(last=False)[1].values())
