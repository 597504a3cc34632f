"""What the tests of policies share: an observer that remembers, errors, work, who does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from threading import Lock

from callcast.core.context import Context
from callcast.core.errors import Remote
from callcast.core.message import NO_HEADERS, Message
from callcast.core.outcome import DONE, Outcome
from callcast.core.work import Kind, Work
from callcast.policies.silent import Silent
from callcast.ports.observer import Fact, Observer, WorkSpan
from callcast.runtime.chance import Ids
from callcast.runtime.policy import Policy
from callcast.runtime.ports import Ports
from callcast.testing.clock import ManualClock


class Remembering(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.measured: list[tuple[str, float, BaseException | None]] = []

    def measure(self, work: Work, took: float, error: BaseException | None) -> None:
        self.measured.append((work.name, took, error))

    @property
    def hears_success(self) -> bool:
        return True

    def tell(self, fact: Fact) -> None:
        self.facts.append(fact)

    def of(self, kind: type[Fact]) -> list[Fact]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


class Span:
    def __init__(self) -> None:
        self.ended: list[tuple[BaseException | None, object]] = []

    def end(
        self,
        error: BaseException | None = None,
        *,
        status: int | None = None,
        outcome: object = None,
    ) -> None:
        self.ended.append((error, outcome))


class Tracing(Observer):
    """Records spans; not Silent, so recipes put Trace and Measure in."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.facts: list[Fact] = []

    @property
    def is_tracing(self) -> bool:
        return True

    def begin(self, work: Work) -> WorkSpan:
        span = Span()
        self.spans.append(span)
        return span

    def attempt(self, work: Work, url: str) -> WorkSpan:
        return self.begin(work)

    def carrier(self, work: Work) -> Mapping[str, str]:
        return NO_HEADERS

    def measure(self, work: Work, took: float, error: BaseException | None) -> None:
        return

    def tell(self, fact: Fact) -> None:
        self.facts.append(fact)


def ports_of(
    clock: ManualClock,
    observer: Observer | None = None,
    dice: Callable[[], float] = lambda: 0.5,
) -> Ports:
    return Ports(
        clock=clock,
        dice=dice,
        new_id=Ids(),
        observer=observer or Remembering(),
        failpoints=lambda _name: None,
    )


def a_call(deadline: float | None = None, context: Context | None = None, attempt: int = 1) -> Work:
    return Work(
        Kind.CALL,
        "inventory.stock",
        "call-1",
        peer="inventory",
        value="tea",
        context=context,
        deadline=deadline,
        attempt=attempt,
    )


def a_context(deadline: float | None = None, upstream_attempt: int = 1) -> Context:
    return Context("m-1", "c-1", deadline=deadline, upstream_attempt=upstream_attempt)


def a_delivery(
    body: bytes = b"1",
    *,
    round: int = 0,
    expires: float | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Work:
    message = Message(
        "m-1", "orders", "orders.placed", "orders.placed", body, expires=expires, headers=headers
    )
    return Work(
        Kind.CONSUME,
        "orders.placed",
        message.id,
        peer="warehouse",
        value=body,
        message=message,
        round=round,
    )


def overloaded(retry_after: float | None = None, *, do_not_retry: bool = False) -> Remote:
    return Remote("too busy", status=503, retry_after=retry_after, do_not_retry=do_not_retry)


def lock() -> Lock:
    return Lock()


class Handler:
    """Raises what it is given, in order, then is done; remembers its runs."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.runs: list[tuple[int, object]] = []

    async def __call__(self, work: Work) -> Outcome:
        self.runs.append((work.attempt, work.value))
        if self.errors:
            raise self.errors.pop(0)
        return DONE


class Guarded:
    """A policy on a manual clock, and a function that fails as it is told."""

    def __init__(self, **parts: object) -> None:
        self.clock = ManualClock()
        self.seen = Remembering()
        self.policy = Policy(ports=ports_of(self.clock, self.seen), **parts)  # type: ignore[arg-type]
        self.errors: list[BaseException] = []
        self.calls = 0
        self.takes = 0.0

    async def function(self, value: str = "x") -> str:
        self.calls += 1
        if self.takes:
            await self.clock.sleep(self.takes)
        if self.errors:
            raise self.errors.pop(0)
        return value.upper()

    async def run(self, seconds: float = 1_000.0) -> str:
        task = asyncio.ensure_future(self.policy.run(self.function, "x"))
        await self.clock.advance(seconds)
        return await task
