"""Contracts: what services agree on. Frozen descriptions that belong to no bus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from typing_extensions import TypeForm

from callcast.core.amqp import Amqp
from callcast.core.binding import HttpBinding, callcast_path
from callcast.core.errors import Misuse
from callcast.core.names import checked_name
from callcast.core.needs import Needs

Q = TypeVar("Q")
A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Operation(Generic[Q, A]):
    """Something a service does when asked: called (`bus.call`) or cast (`bus.cast`).

    `request` and `response` are types in the widest sense: ``Struct``, dataclass, ``TypedDict``,
    builtins, unions, ``None``. `deadline` is seconds a caller waits by default; it never becomes
    a message's expiry. `idempotent`: repeating it is harmless. `once`: its handler takes a
    `Transaction`, which makes the effect happen once. Raises `Misuse` for a bad name or binding.
    """

    name: str
    request: TypeForm[Q]
    response: TypeForm[A]
    service: str = field(default="", kw_only=True)
    """Who serves it; defaults to the name up to its first dot."""
    http: str | None = field(default=None, kw_only=True)
    grpc: str | None = field(default=None, kw_only=True)
    idempotent: bool = field(default=False, kw_only=True)
    once: bool = field(default=False, kw_only=True)
    deadline: float = field(default=1.0, kw_only=True)
    needs: Needs | None = field(default=None, kw_only=True)
    binding: HttpBinding = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked_name(self.name, "operation")
        if not self.service:
            object.__setattr__(self, "service", self.name.partition(".")[0])
        checked_name(self.service, f"service of operation {self.name!r}")
        if not self.deadline > 0:
            raise Misuse(
                f"operation {self.name!r}: deadline={self.deadline!r} must be above 0 seconds"
            )
        binding = callcast_path(self.name) if self.http is None else HttpBinding.parse(self.http)
        object.__setattr__(self, "binding", binding)

    @property
    def topic(self) -> str:
        """Where its casts go."""
        return self.name

    @property
    def is_repeatable(self) -> bool:
        """Whether a call of it may be retried though it may have happened."""
        return self.idempotent or self.once or self.binding.is_safe


@dataclass(frozen=True, slots=True)
class Event(Generic[T]):
    """A fact that was so: whoever cares may listen.

    With `key` it is ordered: one key is handled one at a time, in order. `on_dead="park"` holds a
    key behind its dead letter until that is redriven or skipped. `unheard=True`: publishing it is
    no error though no group has ever subscribed. Raises `Misuse` for a bad name or version.
    """

    name: str
    type: TypeForm[T]
    key: Callable[[T], str] | None = field(default=None, kw_only=True)
    version: int = field(default=1, kw_only=True)
    on_dead: Literal["skip", "park"] = field(default="skip", kw_only=True)
    unheard: bool = field(default=False, kw_only=True)
    needs: Needs | None = field(default=None, kw_only=True)
    amqp: Amqp | None = field(default=None, kw_only=True)
    """The exchange or queue of others that it is bound to on RabbitMQ."""

    def __post_init__(self) -> None:
        checked_name(self.name, "event")
        if self.version < 1:
            raise Misuse(f"event {self.name!r}: version={self.version!r} must be 1 or more")
        if self.on_dead not in {"skip", "park"}:
            raise Misuse(f"event {self.name!r}: on_dead={self.on_dead!r} must be 'skip' or 'park'")
        if self.on_dead == "park" and self.key is None:
            raise Misuse(
                f"event {self.name!r}: on_dead='park' holds a key behind its dead letter,"
                " so the event needs key="
            )
        if self.amqp is not None:
            self.amqp.check(self.name, has_key=self.key is not None)

    @property
    def topic(self) -> str:
        """Its name; versions above 1 are topics of their own (``orders.placed.v2``)."""
        return self.name if self.version == 1 else f"{self.name}.v{self.version}"
