"""A `System` out of traces: edges, chains, fan-out, retries and queues, found and measured."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from msgspec import Struct

from callcast.advise.model import Edge, Interaction, Measured, Span, System, Terms, Verb
from callcast.advise.traces import words
from callcast.advise.traces.gathering import traces
from callcast.advise.traces.stepping import Stepping
from callcast.advise.traces.tree import Called, Tree, ended, is_handler

PUBLISHED_MAX = 100_000
"""Messages that are remembered until somebody handles them, in this trace or another."""
HELD_MAX = 10_000
"""Handled messages that wait for the span of their publishing."""
PEAK = 10.0
"""Seconds over which the busiest rate is taken."""
ROUND = "callcast.delivery.round"

EDGES_MAX = 10_000
"""Interactions that are told apart: names with an id in them would be without end."""
OTHERS = Edge("_OTHER", "_OTHER", "_OTHER")
BUSY_MAX = 20_000
"""Stretches of ten seconds that are counted (two days); of more, the busiest."""

Key = tuple[str, str]


class _Published(Struct, frozen=True):
    service: str
    destination: str
    at: float
    has_outbox: bool | None
    """None of what a handler sent that failed: it may be an undo, which belongs to no commit."""
    handler: Span


class Measuring:
    """Told trace after trace; `system` is what they say together."""

    def __init__(self, sources: Sequence[str] = ()) -> None:
        self.dropped: Counter[str] = Counter()
        self._sources = tuple(sources)
        self._found: dict[Edge, Interaction] = {}
        self._numbers: dict[Edge, Measured] = {}
        self._steps = Stepping()
        self._busy: dict[Edge, Counter[int]] = {}
        self._published: OrderedDict[Key, _Published] = OrderedDict()
        self._held: list[Span] = []  # handled messages without a known publishing
        self._replies: set[Edge] = set()
        self._first, self._last = float("inf"), float("-inf")
        self._traces = 0

    def read(self, spans: Iterable[Span]) -> None:
        """Take in all traces of these spans."""
        for trace in traces(spans, self.dropped):
            self.add(trace)

    def add(self, spans: Sequence[Span]) -> None:
        """Take in one trace."""
        self._traces += 1
        tree = Tree(spans, self.dropped)
        for span in spans:
            self._first = min(self._first, span.start)
            self._last = max(self._last, ended(span))
        handlers = [each for each in spans if is_handler(each) or tree.parent(each) is None]
        made: Counter[Edge] = Counter()
        for handler in handlers:
            self._handle(tree, handler, made)
        for handler in handlers:
            if words.is_handling(handler):
                self._consume(handler, made)
        self._find_requests(handlers)
        for edge, count in made.items():
            measured = self._measured(edge)
            measured.traces += 1
            measured.calls_per_trace_max = max(measured.calls_per_trace_max, count)

    def system(self) -> System:
        """What was found."""
        held, self._held = self._held, []
        for span in held:
            self._consume(span, Counter())
        if self._held:
            self.dropped["a message whose publishing was not seen"] += len(self._held)
        window = max(0.0, self._last - self._first)
        without = {*self._replies, OTHERS}
        heard = Counter((edge.caller, edge.name) for edge in self._found)
        for edge, interaction in self._found.items():
            measured = self._measured(edge)
            measured.window = window
            busiest = max(self._busy[edge].values(), default=0)
            measured.peak_rate = busiest / PEAK
            if interaction.verb is Verb.CAST and heard[edge.caller, edge.name] > 1:
                interaction.verb = Verb.PUBLISH
        return System(
            interactions={e: i for e, i in self._found.items() if e not in without},
            handlers=self._steps.handlers(without),
            window=window,
            traces=self._traces,
            sources=self._sources,
            dropped=dict(self.dropped),
        )

    def _handle(self, tree: Tree, handler: Span, made: Counter[Edge]) -> None:
        key = (_service(handler), _name(handler))
        calls = [(self._call(each, key[0], made), each) for each in tree.calls(handler)]
        for span in tree.publishes(handler):
            self._publish(tree, span, handler)
        is_entry = tree.parent(handler) is None and not words.is_handling(handler)
        self._steps.saw(key, handler, calls, is_entry=is_entry)

    def _call(self, called: Called, caller: str, made: Counter[Edge]) -> Edge:
        edge = self._told_apart(Edge(caller, called.callee, called.name))
        measured = self._measured(edge)
        last = called.attempts[-1]
        measured.count += 1
        measured.errors += last.is_error
        measured.attempts += len(called.attempts)
        measured.attempt_errors += sum(each.is_error for each in called.attempts)
        measured.latency.record(called.end - called.start)
        if called.served is not None:
            measured.work.record(called.served.took)
        self._note(edge, called.start)
        made[edge] += 1
        return edge

    def _publish(self, tree: Tree, span: Span, handler: Span) -> None:
        later = tree.leaves(span)
        last = later[-1] if later else span
        # What is sent after its handler has ended was kept meanwhile.
        is_kept = bool(later) or span.start > ended(handler)
        has_outbox = True if is_kept else None if handler.is_error else False
        published = _Published(
            _service(handler), words.destination(span), ended(last), has_outbox, handler
        )
        for each in (span, *later):
            self._published[each.trace_id, each.span_id] = published
        while len(self._published) > PUBLISHED_MAX:
            self._published.popitem(last=False)

    def _publishing_of(self, span: Span) -> _Published | None:
        """Which message it handles: by its links, and by its parent."""
        for key in (*span.links, (span.trace_id, span.parent_id)):
            found = self._published.get(key)
            if found is not None:
                return found
        return None

    def _consume(self, span: Span, made: Counter[Edge]) -> None:
        published = self._publishing_of(span)
        if published is None:
            if len(self._held) < HELD_MAX:
                self._held.append(span)
            else:
                self.dropped["a message whose publishing was not seen"] += 1
            return
        edge = self._told_apart(Edge(published.service, words.group(span), published.destination))
        measured = self._measured(edge, Verb.CAST, Terms(has_outbox=published.has_outbox))
        is_first = not words.number(span, ROUND)
        measured.count += is_first
        measured.attempts += 1
        measured.attempt_errors += span.is_error
        measured.errors += span.attributes.get("outcome") == "dead"
        measured.work.record(span.took)
        measured.queue_time.record(max(0.0, span.start - published.at))
        self._note(edge, span.start)
        made[edge] += is_first
        handler = published.handler
        self._steps.sent((_service(handler), _name(handler)), edge, handler)

    def _find_requests(self, handlers: Sequence[Span]) -> None:
        """A message whose answer comes back as a message, while who sent it still waits."""
        for reply in handlers:
            answered = self._publishing_of(reply) if words.is_handling(reply) else None
            if answered is None or not words.is_handling(answered.handler):
                continue
            asked = self._publishing_of(answered.handler)
            is_theirs = asked is not None and (
                asked.service == reply.service or words.is_reply(answered.destination)
            )
            if asked is None or not is_theirs:
                continue
            if asked.handler.start <= reply.start <= ended(asked.handler):
                edge = self._told_apart(
                    Edge(asked.service, words.group(answered.handler), asked.destination)
                )
                self._found[edge].verb = Verb.REQUEST
                self._measured(edge).latency.record(max(0.0, reply.start - asked.at))
                self._replies.add(Edge(answered.service, words.group(reply), answered.destination))

    def _told_apart(self, edge: Edge) -> Edge:
        """The edge, or what stands for all beyond the bound."""
        if edge in self._found or len(self._found) < EDGES_MAX:
            return edge
        self.dropped[f"of an interaction beyond the {EDGES_MAX:,} that are told apart"] += 1
        return OTHERS

    def _measured(self, edge: Edge, verb: Verb = Verb.CALL, terms: Terms | None = None) -> Measured:
        if edge not in self._found:
            numbers = self._numbers[edge] = Measured()
            self._found[edge] = Interaction(
                edge=edge, verb=verb, terms=terms or Terms(), measured=numbers
            )
            self._busy[edge] = Counter()
        return self._numbers[edge]

    def _note(self, edge: Edge, at: float) -> None:
        busy = self._busy[edge]
        busy[int(at / PEAK)] += 1
        if len(busy) > BUSY_MAX:
            self._busy[edge] = Counter(dict(busy.most_common(BUSY_MAX // 2)))


def _service(span: Span) -> str:
    return words.group(span) if words.is_handling(span) else span.service


def _name(span: Span) -> str:
    """What a handler handles, as the edges that lead to it call it."""
    return words.destination(span) if words.is_handling(span) else words.operation(span)


def measured(spans: Iterable[Span], sources: Sequence[str] = ()) -> System:
    """The system that these spans are of."""
    measuring = Measuring(sources)
    measuring.read(spans)
    return measuring.system()
