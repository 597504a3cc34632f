"""What the adviser reasons about: interactions between services, declared and measured.

It is filled from contracts, ``advice.toml``, the local record and traces, each alone or joined;
None always means "not known", and is asked for by name, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from msgspec import Struct, field

from callcast.core.histogram import Histogram
from callcast.core.needs import Needs

NONE_DROPPED: Mapping[str, int] = MappingProxyType({})


class Verb(StrEnum):
    """How an interaction is made today."""

    CALL = "call"
    """The caller waits for the callee."""
    CAST = "cast"
    """A message for one callee; nobody waits."""
    PUBLISH = "publish"
    """A fact for every group that subscribed."""
    REQUEST = "request"
    """A message whose answer comes back over a queue, and the caller waits for it."""


class Verdict(StrEnum):
    """How it should be made."""

    CALL = "CALL"
    CAST = "CAST"
    PUBLISH = "PUBLISH"
    SAGA = "SAGA"
    UNDECIDED = "UNDECIDED"


class Edge(Struct, frozen=True, order=True):
    """Who says what to whom: the key of an interaction."""

    caller: str
    callee: str
    name: str
    """The operation, event or topic; for plain HTTP the method and route."""

    def __str__(self) -> str:
        """As it is written in ``advice.toml`` and ``--what-if``: ``orders->mail:mail.send``."""
        return f"{self.caller}->{self.callee}:{self.name}"


class Terms(Struct, frozen=True, kw_only=True):
    """What code or configuration fixes for an interaction. Durations are seconds."""

    deadline: float | None = None
    """All that the caller waits, attempts and back-off included."""
    attempt_timeout: float | None = None
    attempts: int | None = None
    """Of one call or of one delivery, in all."""
    backoff_max: float | None = None
    """The longest sum of waits between the attempts."""
    retry_budget: float | None = None
    """Retries as a share of calls; None: no budget."""
    gives_way: bool | None = None
    """Whether it does not retry while its own caller does, as calls of this package do not."""
    has_fallback: bool | None = None
    is_idempotent: bool | None = None
    has_outbox: bool | None = None
    """Whether it leaves in the caller's own database transaction."""
    in_transaction: bool | None = None
    """Whether it is sent while a database transaction is open."""
    retry_horizon: float | None = None
    """From the first failure of a delivery until it is dead."""
    has_dead_letters: bool | None = None
    dead_letters_watched: bool | None = None
    """Whether they have an owner or an alert."""
    retention: float | None = None
    """How long the broker keeps what nobody has handled."""
    is_keyed: bool | None = None
    """Whether one key is handled one at a time, in order."""
    workers: int | None = None
    """Handlers of the callee that run side by side, in all its processes."""
    has_undo: bool | None = None
    """Whether a saga step has a compensation."""
    is_saga_step: bool = False


class Measured(Struct, kw_only=True):
    """What was seen of an interaction in a window of `window` seconds."""

    count: int = 0
    """How often it was made, attempts of one counted once."""
    errors: int = 0
    """Of these, how many failed for the caller (or, of messages, went dead)."""
    window: float = 0.0
    peak_rate: float = 0.0
    """A second, over the busiest ten seconds."""
    latency: Histogram = field(default_factory=Histogram)
    """What the caller waited; of a cast, until the message was durable."""
    work: Histogram = field(default_factory=Histogram)
    """What the callee took to handle it, without what waited before."""
    queue_time: Histogram = field(default_factory=Histogram)
    """From publish to the start of handling."""
    attempts: int = 0
    """All attempts of all `count`."""
    attempt_errors: int = 0
    traces: int = 0
    """In how many traces it was made at all; with `count`, calls per trace."""
    calls_per_trace_max: int = 0
    parallel_max: int = 0
    """How many of one caller's span ran side by side, at most."""
    is_result_used: bool | None = None

    @property
    def rate(self) -> float:
        """How often a second, over the whole window; 0 where there was none."""
        return self.count / self.window if self.window else 0.0


class Interaction(Struct, kw_only=True):
    """One edge with all that is known about it."""

    edge: Edge
    verb: Verb
    needs: Needs = field(default_factory=Needs)
    terms: Terms = field(default_factory=Terms)
    measured: Measured | None = None
    at: str = ""
    """Where its contract or call stands: ``file:line``, for reports that point at code."""


class Step(Struct, frozen=True):
    """One thing that a handler does, in the order seen."""

    edge: Edge
    group: int
    """Steps of one number run side by side; numbers run one after the other."""
    share: float = 1.0
    """In which share of the requests of its entry it happens."""


class Handler(Struct, kw_only=True):
    """What a service does for one request or message."""

    service: str
    name: str
    """What it handles: the name of the edges that lead here."""
    steps: tuple[Step, ...] = ()
    own: Histogram = field(default_factory=Histogram)
    """Its time without what it waited for others."""
    availability: float | None = None
    """Its own, without what others did to it."""
    is_entry: bool = False
    """Whether a user or a program outside asks for it: paths begin here."""


class System(Struct, kw_only=True):
    """All of it."""

    interactions: dict[Edge, Interaction] = {}
    handlers: dict[tuple[str, str], Handler] = {}
    """(service, name) to what it does."""
    broker_availability: float | None = None
    window: float = 0.0
    """Seconds between the first and the last thing seen."""
    traces: int = 0
    sources: tuple[str, ...] = ()
    """What it was read from, for people."""
    dropped: Mapping[str, int] = NONE_DROPPED
    """Why something was left out, to how often."""


class Span(Struct, frozen=True, kw_only=True):
    """One span of any tracer, as all formats of traces are read into."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    service: str
    name: str
    kind: Literal["client", "server", "producer", "consumer", "internal"] = "internal"
    start: float
    """Seconds since the epoch."""
    took: float
    """Seconds."""
    is_error: bool = False
    attributes: Mapping[str, str | int | float | bool] = MappingProxyType({})
    links: tuple[tuple[str, str], ...] = ()
    """Trace and span id of each."""
