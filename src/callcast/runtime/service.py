"""Services: declarations of who handles what. They hold no connection and run on any bus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Concatenate, Literal, ParamSpec, TypeAlias, TypeVar

from callcast.core.contract import Event, Operation
from callcast.core.errors import Misuse
from callcast.core.names import checked_name
from callcast.policies.recovery import Recovery
from callcast.ports.broker import Source, Start
from callcast.runtime.callables import where

Q = TypeVar("Q")
A = TypeVar("A")
T = TypeVar("T")
P = ParamSpec("P")

Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]

TIMEOUT = 300.0
"""Seconds that one delivery may take by default, immediate repeats included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One function and what it was declared for."""

    function: Callable[..., object]
    contract: Operation[Any, Any] | Event[Any]
    group: str
    start: Start = Start.NEW
    recovery: Recovery | None = None
    timeout: float = TIMEOUT

    @property
    def where(self) -> str:
        """``shop.orders.place (shop/orders.py:41)``, for messages."""
        return where(self.function)

    @property
    def source(self) -> Source:
        """What must exist at the broker for it; from the contract and the group alone."""
        contract = self.contract
        if not isinstance(contract, Event):
            return Source(contract.topic, self.group, start=self.start)
        bound = None if contract.amqp is None else contract.amqp.bound(contract.name)
        ordered = contract.key is not None
        return Source(contract.topic, self.group, ordered=ordered, start=self.start, bound=bound)


class Service:
    """A named set of handlers.

    `lifespan` is an async context manager (pools, clients), entered before the first message and
    left after the last; what it yields can be injected into handlers. `database` is where
    `Transaction` writes: a URL (``sqlite:///orders-data.db``), or a `Database` of
    `callcast.ports.session`, which the bus closes; with the embedded broker it defaults
    to a file of the service's own beside the broker's. `schema` is SQL that
    must be harmless to repeat (``create table if not exists ...``), run there at each start.
    """

    def __init__(
        self,
        name: str,
        *,
        lifespan: Lifespan | None = None,
        database: object = None,
        schema: Sequence[str] = (),
    ) -> None:
        self.name: str = checked_name(name, "service")
        self.lifespan = lifespan
        self.database = database
        self.schema: tuple[str, ...] = tuple(schema)
        self.handlers: list[Handler] = []

    def __repr__(self) -> str:
        return f"Service({self.name!r}, {len(self.handlers)} handlers)"

    def serves(
        self,
        operation: Operation[Q, A],
        *,
        recovery: Recovery | None = None,
        timeout: float = TIMEOUT,
    ) -> Callable[
        [Callable[Concatenate[Q, P], Awaitable[A] | A]],
        Callable[Concatenate[Q, P], Awaitable[A] | A],
    ]:
        """Declare the handler of an operation, for calls and casts alike.

        `timeout` bounds one delivery of a cast in seconds; a call is bounded by its caller's
        deadline. Raises `Misuse` when the operation belongs to another service or has a handler.
        """
        if operation.service != self.name:
            raise Misuse(
                f"operation {operation.name!r} belongs to service {operation.service!r}, not to"
                f" {self.name!r}: serve it there, or declare it with service={self.name!r}"
            )

        def declare(
            function: Callable[Concatenate[Q, P], Awaitable[A] | A],
        ) -> Callable[Concatenate[Q, P], Awaitable[A] | A]:
            handler = Handler(
                function=function,
                contract=operation,
                group=self.name,
                recovery=recovery,
                timeout=timeout,
            )
            self._add(handler, "serve it once")
            return function

        return declare

    def on(
        self,
        event: Event[T],
        *,
        group: str = "",
        start: Literal["new", "earliest"] = "new",
        recovery: Recovery | None = None,
        timeout: float = TIMEOUT,
    ) -> Callable[
        [Callable[Concatenate[T, P], Awaitable[object] | object]],
        Callable[Concatenate[T, P], Awaitable[object] | object],
    ]:
        """Declare a handler of an event. All processes of a service share the group's messages.

        `start="earliest"` hears what the broker still keeps from before the group existed. Raises
        `Misuse` for a second handler of one event without a `group=` of its own.
        """
        name = f"{self.name}.{checked_name(group, 'group')}" if group else self.name

        def declare(
            function: Callable[Concatenate[T, P], Awaitable[object] | object],
        ) -> Callable[Concatenate[T, P], Awaitable[object] | object]:
            handler = Handler(
                function=function,
                contract=event,
                group=name,
                start=Start(start),
                recovery=recovery,
                timeout=timeout,
            )
            self._add(handler, "give the second one a group= of its own")
            return function

        return declare

    def _add(self, handler: Handler, remedy: str) -> None:
        refuse_twins([*self.handlers, handler], remedy)
        if not handler.timeout > 0:
            raise Misuse(f"{handler.where}: timeout={handler.timeout!r} must be above 0 seconds")
        self.handlers.append(handler)


def refuse_twins(handlers: Iterable[Handler], remedy: str) -> None:
    """Raise `Misuse` where two handlers would get the same messages or calls, naming both."""
    known: dict[tuple[str, str], Handler] = {}
    for handler in handlers:
        topic, group = handler.contract.topic, handler.group
        other = known.get((topic, group))
        if other is not None:
            raise Misuse(
                f"{topic!r} has two handlers in {group!r}: {other.where} and {handler.where};"
                f" {remedy}"
            )
        known[topic, group] = handler
