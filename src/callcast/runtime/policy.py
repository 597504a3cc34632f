"""`Policy`: a frozen description of guards, for calls to a peer and around any async function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import ParamSpec, TypeVar

from msgspec import Struct

from callcast.core.context import AMBIENT
from callcast.core.errors import Misuse
from callcast.core.work import CALL, Next, Work
from callcast.policies.options import Bulkhead, CircuitBreaker, Retry
from callcast.runtime import recipes
from callcast.runtime.callables import Nature, inmost, nature, where
from callcast.runtime.guards import Terms
from callcast.runtime.ports import Ports
from callcast.runtime.system import system_ports

__all__ = ["Bulkhead", "CircuitBreaker", "Policy", "Retry"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(Terms):
    """Retry, circuit breaker, bulkhead and deadline, around any async function or a peer.

    ::

        policy = Policy(deadline=2.0, idempotent=True)

        @policy
        async def price(sku: str) -> Decimal: ...

        await policy.run(client.get, url)

    `deadline` bounds all attempts together and `attempt_timeout` each one (seconds); inside a
    handler the caller's deadline bounds them too. None leaves a part out; a function has no
    deadline of its own then, an operation has its contract's. Without `idempotent=True` or
    `retry_on=` (exception classes, or a function that is asked) only what was surely not sent is
    retried. Operations are as idempotent as their contract says.

    The functions of one Policy object share its circuit, slots and budget: one object per callee.
    As the policy of peers it keeps them for each peer. The state is of this process and is lost
    with it. The original exception surfaces, `attempts_of` tells what was tried. Raises what the
    function raises; `CircuitOpen`, `BulkheadFull` or `Expired` when it was not called;
    `Unanswered` when an attempt took too long; `Misuse` for what cannot be guarded.

    Calls, retries, rejections and circuits go to OpenTelemetry's metrics and traces where the
    program has set up an SDK, and to the log. There a function has its own name and its callee is
    called `name`, or as the function that was guarded first. A peer has its service's name.
    """

    name: str = ""
    ports: Ports | None = field(default=None, repr=False, compare=False)
    """Clock, dice and observer, for tests; None is the machine's own, and OpenTelemetry."""
    _guarded: Guarded = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        Terms.__post_init__(self)
        object.__setattr__(self, "_guarded", Guarded(self))

    def __call__(
        self, function: Callable[P, Awaitable[R]], /
    ) -> Callable[P, Coroutine[object, object, R]]:
        """Decorate an async function; raises `Misuse` for one that cannot be guarded."""
        checked, name, guards = _guardable(function), _name(function), self._guarded
        peer = guards.callee(name)

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            call = Invocation(checked, args, kwargs)
            work = Work(CALL, name, peer=peer, value=call, context=AMBIENT.get())
            return await guards.run(work)  # type: ignore[return-value]  # as `function` returned it

        return guarded

    async def run(
        self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call the function once, guarded. A lambda must return something to await."""
        name, guards = _name(function), self._guarded
        code = getattr(function, "__code__", None)
        if not isinstance(code, CodeType) or not code.co_flags & inspect.CO_COROUTINE:
            function = _guardable(function)
        call = Invocation(function, args, kwargs)
        peer = guards.callee(name)
        work = Work(CALL, name, peer=peer, value=call, context=AMBIENT.get())
        return await guards.run(work)  # type: ignore[return-value]  # as `function` returned it


class Guarded:
    """The layers around the functions of one policy, made when the first of them is called.

    So a policy that is of peers only, or of a program that is just being loaded, loads nothing.
    """

    __slots__ = ("_name", "_policy", "run")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._name = policy.name  # changed by callee(), once
        self.run: Next[object] = self._first  # changed by it, at the first call

    def _first(self, work: Work) -> Awaitable[object]:
        # Two threads may both get here: what the layers share is kept by the policy.
        self.run = _layered(self._policy)
        return self.run(work)

    def callee(self, function: str) -> str:
        """What all functions of the policy call, in metrics and errors: one circuit, one name."""
        self._name = self._name or function
        return self._name


def _layered(policy: Policy) -> Next[object]:
    ports = policy.ports or system_ports("")
    layers = recipes.call(policy, None, ports, has_timer=False)
    return recipes.assembled(layers, _invoke, ports.observer)


class Invocation(Struct, frozen=True, gc=False):
    """A function and what it is called with."""

    function: Callable[..., Awaitable[object]]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]


def _invoke(work: Work) -> Awaitable[object]:
    """The innermost step around a guarded function."""
    call = work.value
    if not isinstance(call, Invocation):
        raise Misuse("a Policy's chain was given work that is no call of a function")
    return call.function(*call.args, **call.kwargs)


def _name(function: Callable[..., object]) -> str:
    """As it was written, without the arguments of a partial: they may be secret, and many."""
    name: str = getattr(function, "__qualname__", "") or getattr(
        inmost(function), "__qualname__", type(function).__qualname__
    )
    return name


def _guardable(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """The function, when calling it gives something to await; else `Misuse` with what to do.

    Of a lambda, and of a plain function that wraps an async one, this is seen when it is called.
    """
    if inspect.iscoroutinefunction(function):
        return function
    seen = nature(function)
    if seen is Nature.ASYNC or getattr(inmost(function), "__name__", "") == "<lambda>":
        return _awaited(function)
    kind = "not an async function, so a policy cannot time, cancel or await it"
    if seen is Nature.STREAM:
        kind = "a stream, and after its first item nothing can be retried"
    raise Misuse(f"{where(function)} is {kind}: guard an 'async def' that calls it")


def _awaited(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        result = function(*args, **kwargs)
        if not inspect.isawaitable(result):
            raise Misuse(
                f"{where(function)} returned {type(result).__name__}, which cannot be awaited: it"
                " was called without a guard; let it return the call of an async function"
            )
        return await result

    return call
