"""From a handler function to one step that runs it: what it asks for is found once, at start."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor

from msgspec import Struct

from callcast.core.context import AMBIENT, Context
from callcast.core.contract import Event, Operation
from callcast.core.errors import Misuse
from callcast.core.work import Work
from callcast.runtime.callables import Nature, discard, inmost, is_unfinished, nature
from callcast.runtime.service import Handler
from callcast.runtime.transaction import Transaction

Supply = Callable[[Work, Context], object]
"""Where one injected argument comes from."""


class Injection(Struct, frozen=True):
    """What a host can inject."""

    asynchronous: Mapping[type, Supply]
    """Objects with ``async`` methods: only for ``async def`` handlers."""
    plain: Mapping[type, Supply]
    yielded: object = None
    """What the service's lifespan yielded; None when it has none or yielded nothing."""
    has_database: bool = False


class Bound(Struct, frozen=True):
    """A handler that can run."""

    handler: Handler
    run: Callable[[Work, Context], Awaitable[object]]
    takes_transaction: bool


def bind(handler: Handler, injection: Injection, executor: Executor) -> Bound:
    """Resolve the annotations of a handler; raises `Misuse` naming function, line and fix."""
    is_async = _is_async(handler)
    supplies: list[Supply] = []
    takes_transaction = False
    for name, annotation in _extras(handler):
        if annotation is Transaction:
            takes_transaction = True
            _check_transaction(handler, name, has_database=injection.has_database)
        supplies.append(_supply(handler, (name, annotation), injection, is_async=is_async))
    contract = handler.contract
    if isinstance(contract, Operation) and contract.once and not takes_transaction:
        raise Misuse(
            f"{handler.where} serves {contract.name!r}, which is once=True, but takes no"
            " Transaction: add a parameter 'tx: Transaction' and write through it"
        )
    run = _run_async(handler, supplies) if is_async else _run_thread(handler, supplies, executor)
    return Bound(handler, run, takes_transaction)


def wants_transaction(handler: Handler) -> bool:
    """Whether it asks for a `Transaction`, so that its service needs a database."""
    return any(annotation is Transaction for _, annotation in _extras(handler))


def _is_async(handler: Handler) -> bool:
    """Whether its calls are awaited; `Misuse` for a stream, of which nothing would ever run."""
    seen = nature(handler.function)
    if seen is Nature.STREAM:
        raise Misuse(
            f"{handler.where} has a 'yield', so that calling it runs nothing: make the handler an"
            " 'async def' or a plain 'def' without 'yield', which returns its result"
        )
    return seen is Nature.ASYNC


def _extras(handler: Handler) -> Sequence[tuple[str, object]]:
    """Name and annotation of each parameter after the request."""
    function = handler.function
    try:
        hints = typing.get_type_hints(inmost(function))
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise Misuse(
            f"{handler.where}: an annotation cannot be resolved ({error}): import that name at"
            " module level, not under TYPE_CHECKING or inside a function"
        ) from error
    parameters = list(inspect.signature(function).parameters.values())
    flexible = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if not parameters or any(p.kind in flexible for p in parameters):
        raise Misuse(
            f"{handler.where} must take the request as its first parameter, then only what can be"
            " injected by annotation; *args and **kwargs cannot"
        )
    if any(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters):
        raise Misuse(f"{handler.where}: keyword-only parameters cannot be injected; remove the '*'")
    return [(p.name, hints.get(p.name)) for p in parameters[1:]]


def _check_transaction(handler: Handler, name: str, *, has_database: bool) -> None:
    amqp = handler.contract.amqp if isinstance(handler.contract, Event) else None
    if amqp is not None and amqp.queue and not amqp.identify:
        raise Misuse(
            f"{handler.where}: parameter {name!r} asks for a Transaction, and messages of the queue"
            f" {amqp.queue!r} need not have an id to be known again by: say"
            " Amqp(identify='message_id'), the name of a header, or a function"
        )
    if not has_database:
        service = handler.group.partition(".")[0]
        raise Misuse(
            f"{handler.where}: parameter {name!r} asks for a Transaction, but service {service!r}"
            f" has no database: say Service({service!r}, database='sqlite:///...')"
        )


def _supply(
    handler: Handler, parameter: tuple[str, object], injection: Injection, *, is_async: bool
) -> Supply:
    name, annotation = parameter
    if annotation is None:
        raise Misuse(
            f"{handler.where}: parameter {name!r} has no annotation; what a handler takes after"
            " the request is injected by annotation"
        )
    if isinstance(annotation, type):
        if annotation in injection.asynchronous:
            if not is_async:
                raise Misuse(
                    f"{handler.where}: parameter {name!r} is a {annotation.__name__}, which is"
                    " asynchronous, in a plain def: make the handler 'async def'"
                )
            return injection.asynchronous[annotation]
        if annotation in injection.plain:
            return injection.plain[annotation]
    yielded = injection.yielded
    if yielded is not None and isinstance(yielded, _class_of(annotation)):
        return lambda _work, _context: yielded
    given = "nothing" if yielded is None else f"a {type(yielded).__name__}"
    raise Misuse(
        f"{handler.where}: parameter {name!r} is annotated {annotation!r}, which is nothing that"
        " can be injected: Bus, Context, Transaction, or what the service's lifespan yields"
        f" (here: {given})"
    )


def _class_of(annotation: object) -> type:
    origin = typing.get_origin(annotation) or annotation
    return origin if isinstance(origin, type) else _Nothing


class _Nothing:
    """Has no instance: an annotation that is no class matches nothing."""


def _run_async(
    handler: Handler, supplies: Sequence[Supply]
) -> Callable[[Work, Context], Awaitable[object]]:
    function = handler.function

    async def run(work: Work, context: Context) -> object:
        token = AMBIENT.set(context)
        try:
            extras = [supply(work, context) for supply in supplies] if supplies else ()
            began = function(work.value, *extras)
            if not hasattr(began, "__await__"):
                raise _not_awaitable(handler, began)
            result = await typing.cast("Awaitable[object]", began)
        finally:
            AMBIENT.reset(token)
        if result is not None and is_unfinished(result):
            raise _unfinished(handler, result)
        return result

    return run


def _run_thread(
    handler: Handler, supplies: Sequence[Supply], executor: Executor
) -> Callable[[Work, Context], Awaitable[object]]:
    """Run a plain function in the bounded pool; its slot is held until its thread has ended.

    Otherwise a handler that timed out would go on writing after its message was given away.
    """
    function = handler.function

    async def run(work: Work, context: Context) -> object:
        token = AMBIENT.set(context)
        try:
            inside = contextvars.copy_context()
        finally:
            AMBIENT.reset(token)
        extras = [supply(work, context) for supply in supplies]
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(executor, lambda: inside.run(function, work.value, *extras))
        try:
            result = await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_drop)  # its verdict is the cancellation
            await asyncio.wait([future])
            raise
        if result is not None and is_unfinished(result):
            raise _unfinished(handler, result)
        return result

    return run


def _drop(future: asyncio.Future[object]) -> None:
    """See how it ended, for nobody else will."""
    if not future.cancelled() and future.exception() is None:
        discard(future.result())


def _not_awaitable(handler: Handler, result: object) -> Misuse:
    return Misuse(
        f"{handler.where} is asynchronous, but what is wrapped around it returned"
        f" {type(result).__name__}, which cannot be awaited: make that decorator's function"
        " 'async def'"
    )


def _unfinished(handler: Handler, result: object) -> Misuse:
    """The error for a handler that did nothing yet: its message must not count as handled."""
    discard(result)
    return Misuse(
        f"{handler.where} returned {type(result).__name__}, which nobody awaits or iterates over,"
        " so that nothing was done: make it 'async def' and await what it calls; a decorator"
        " around an 'async def' says so with functools.wraps, or is 'async def' itself"
    )
