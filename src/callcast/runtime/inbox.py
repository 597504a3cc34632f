"""The inbox layer: what was handled already does not run again, whoever delivers it twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from callcast.core.context import AMBIENT, context_of
from callcast.core.contract import Event, Operation
from callcast.core.errors import CommitUnknown, Misuse, Refused
from callcast.core.message import Message
from callcast.core.outcome import DONE, Dead, Later, Outcome, Release
from callcast.core.work import Kind, Next, Work
from callcast.policies.recovery import BUSY_WAIT, between
from callcast.ports.observer import DuplicateSeen
from callcast.runtime.transaction import Units, ambient
from callcast.runtime.unit import Unit
from callcast.stores.inbox import Arrival, Seen, arrival_of, payload_hash

R = TypeVar("R")

RUN_UNKNOWN = "callcast-run-unknown"
"""Header of a redriven message: its operator says that it may run though the inbox forgot it."""


class Inbox:
    """Gives the handler its `Transaction`, and commits the inbox row with what it writes.

    | CONSUME                                | outcome                                            |
    |----------------------------------------|----------------------------------------------------|
    | no message id                          | `Dead("missing_id")`                               |
    | known, same payload                    | `Done`; the handler does not run                   |
    | known, other payload                   | `Dead("id_reuse")`                                 |
    | redriven, older than the purge         | `Dead("unknown after purge")`                      |
    | a twin commits while the handler runs  | `Done`, whatever the handler catches               |
    | COMMIT's reply is lost                 | `Release`: the redelivery finds out                |
    | the handler raises                     | rolled back, the inbox row too; the error passes   |

    A call of a ``once=True`` operation gets the stored answer where a message is `Done`, and
    `Refused` (422) for another payload under its key. Other calls just get a transaction.
    """

    def __init__(
        self, units: Units, group: str, contract: Operation[Any, Any] | Event[Any]
    ) -> None:
        self._units = units
        self._group = group
        self._contract = contract
        self._reach = units.ports.failpoints

    async def __call__(self, work: Work, proceed: Next[R], /) -> R:
        """Do the work once."""
        message = work.message
        # What is told about duplicates and commits is told with the ids of this work.
        context = work.context if message is None else context_of(message, self._group)
        token = AMBIENT.set(context)
        try:
            return await self._once(work, proceed)
        finally:
            AMBIENT.reset(token)

    async def _once(self, work: Work, proceed: Next[R]) -> R:
        if work.kind is Kind.CONSUME:
            # Around consumed work R is Outcome, by the recipe that this layer stands in.
            return cast("R", await self._consume(work, cast("Next[Outcome]", proceed)))
        if isinstance(self._contract, Operation) and self._contract.once:
            return cast("R", await self._serve(work, proceed, self._contract))
        return await self._run(self._units.unit(None), work, proceed)

    async def _consume(self, work: Work, proceed: Next[Outcome]) -> Outcome:
        self._reach("inbox.delivered")
        message = work.message
        if message is None:
            raise Misuse(f"{work.name!r}: the inbox was given consumed work without a message")
        if not message.id:
            return Dead("missing_id")
        arrival = arrival_of(message, self._group)
        seen = await self._units.find(arrival)
        if seen is not None:
            return self._known(arrival, seen)
        if await self._is_forgotten(message):
            return Dead("unknown after purge")
        return await self._first(work, proceed, arrival)

    async def _first(self, work: Work, proceed: Next[Outcome], arrival: Arrival) -> Outcome:
        unit = self._units.unit(arrival)
        try:
            return await self._run(unit, work, proceed)
        except CommitUnknown as error:
            if not unit.is_committing:  # another transaction's, inside the handler
                raise
            return Release(between(BUSY_WAIT, self._units.ports.dice), f"commit unknown: {error}")
        except BaseException as error:
            if unit.seen is None or _is_cancelled(error):
                raise
        return self._known(arrival, unit.seen)

    async def _serve(
        self, work: Work, proceed: Next[object], operation: Operation[Any, Any]
    ) -> object:
        codec = self._units.codec
        value = _decoded(work)
        payload = codec.encoder(operation.request)(value)
        arrival = Arrival(
            self._group, f"call:{operation.name}", work.id, payload_hash(operation.name, payload)
        )
        seen = await self._units.find(arrival)
        if seen is not None:
            return self._answer(arrival, seen, operation)
        unit = self._units.unit(arrival)
        encode = codec.encoder(operation.response)
        try:
            return await self._run(unit, replace(work, value=lambda: value), proceed, encode=encode)
        except BaseException as error:
            if unit.seen is None or _is_cancelled(error):
                raise
        return self._answer(arrival, unit.seen, operation)

    async def _run(
        self,
        unit: Unit,
        work: Work,
        proceed: Next[R],
        *,
        encode: Callable[[object], bytes] | None = None,
    ) -> R:
        """The handler inside the unit: committed when it is done, else rolled back."""
        transaction = self._units.transaction(unit)
        try:
            with ambient(transaction):
                result = await proceed(replace(work, transaction=transaction))
            reply = None if encode is None else encode(result)
        except BaseException as error:
            await unit.roll_back(error)
            raise
        if isinstance(result, Later | Dead | Release):
            await unit.roll_back(Misuse("the handler was not done"))
        else:
            await self._units.commit(unit, reply)
        return result

    def _known(self, arrival: Arrival, seen: Seen) -> Outcome:
        if seen.payload_hash != arrival.payload_hash:
            return Dead("id_reuse")
        self._tell(arrival)
        return DONE

    def _answer(self, arrival: Arrival, seen: Seen, operation: Operation[Any, Any]) -> object:
        if seen.payload_hash != arrival.payload_hash:
            raise Refused(
                f"the idempotency key {arrival.message_id!r} was used for another request of"
                f" {operation.name!r}: use a new key for a new request",
                status=422,
            )
        self._tell(arrival)
        return self._units.codec.decoder(operation.response)(seen.reply or b"")

    def _tell(self, arrival: Arrival) -> None:
        fact = DuplicateSeen(consumer=arrival.consumer, message_id=arrival.message_id)
        self._units.ports.observer.tell(fact)

    async def _is_forgotten(self, message: Message) -> bool:
        """Whether it was sent again by hand after its row, if there was one, may be gone."""
        if message.group is None or RUN_UNKNOWN in message.headers:
            return False
        units = self._units
        return message.time < await units.inbox.watermark(units.database, self._group)


def _decoded(work: Work) -> object:
    if not callable(work.value):
        raise Misuse(f"{work.name!r}: the inbox was given no payload to decode")
    value: object = work.value()
    return value


def _is_cancelled(error: BaseException) -> bool:
    """Whether somebody outside wants this work to end: that passes, also beside a twin."""
    return isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit)
