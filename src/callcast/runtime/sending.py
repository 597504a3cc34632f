"""Publishing and casting: message, layers, coalescer."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from math import inf
from typing import Any

from msgspec.structs import replace

from callcast.core.contract import Event, Operation
from callcast.core.errors import Misuse, NotSent
from callcast.core.message import Message
from callcast.core.work import PUBLISH, Next, Work
from callcast.policies.notes import summary
from callcast.ports.broker import Broker, Schedules, Source, need
from callcast.ports.clock import Clock
from callcast.runtime import recipes
from callcast.runtime.coalescer import Coalescer
from callcast.runtime.ports import Ports
from callcast.runtime.settings import Settings


class Sender:
    """Sends messages through the PUBLISH chain, and makes their topics exist on first use."""

    def __init__(
        self, broker: Broker, coalescer: Coalescer, *, ports: Ports, settings: Settings
    ) -> None:
        self._broker = broker
        self._coalescer = coalescer
        self._ports = ports
        self._deadline = settings.publish_deadline
        self._body_max_bytes = min(settings.body_max_bytes, broker.traits.body_max_bytes)
        self._run: Next[object] = recipes.assembled(
            recipes.publish(ports, deadline=self._deadline), self._hand_over, ports.observer
        )
        self._known: dict[int, object] = {}  # contracts whose topic exists, by their id()

    def knows(self, contract: Event[Any] | Operation[Any, Any]) -> bool:
        """Whether the topic of this contract exists already."""
        return id(contract) in self._known

    async def first(
        self,
        contract: Event[Any] | Operation[Any, Any],
        message: Message,
        *,
        until: float = inf,
    ) -> None:
        """Make the topic exist, then send; both together within one deadline, as `send`.

        Where the topic cannot be made, that is `NotSent` with the message's id and the cause.
        """
        self._check(message)
        until = min(until, self._ports.clock.now() + self._deadline)
        await unsent_on_failure(
            self._prepare(contract),
            f"{contract.topic!r} could not be made sure of",
            clock=self._ports.clock,
            until=until,
            id=message.id,
        )
        await self.send(message, until=until, contract=contract)

    async def _prepare(self, contract: Event[Any] | Operation[Any, Any]) -> None:
        """Make the topic exist; for a cast also its service's queue, though it has never run.

        An exchange that others made is left as it is.
        """
        if isinstance(contract, Event) and self._is_bound(contract):
            self._known[id(contract)] = contract
            return
        sources: Sequence[Source] = ()
        if isinstance(contract, Operation):
            sources = (Source(contract.topic, contract.service),)
        await self._broker.ensure([contract.topic], sources)
        self._known[id(contract)] = contract

    def _is_bound(self, event: Event[Any]) -> bool:
        amqp = event.amqp
        return amqp is not None and amqp.exchange is not None and self._broker.traits.binds

    def send(
        self, message: Message, *, until: float = inf, contract: object = None
    ) -> Awaitable[object]:
        """Send one message, of this contract if that is known; returns when it is durable.

        It takes no longer than the publish deadline, and ends by `until` (monotonic). Raises
        `Misuse` for what no repeat would mend, `NotSent` or `Unanswered` with its id.
        """
        self._check(message)
        deadline = self._ports.clock.now() + self._deadline
        return self._run(
            Work(
                PUBLISH,
                message.type,
                message.id,
                contract,
                peer=message.topic,
                message=message,
                deadline=min(until, deadline),
            )
        )

    def _check(self, message: Message) -> None:
        """Refuse a body over the limit, and a delay that nobody keeps."""
        if len(message.body) > self._body_max_bytes:
            raise Misuse(
                f"{message.type!r}: a body of {len(message.body)} bytes exceeds the limit of"
                f" {self._body_max_bytes}: store it elsewhere and send a reference"
            )
        if message.deliver_at is not None:
            need(self._broker, Schedules)

    def _hand_over(self, work: Work) -> Awaitable[object]:
        """The innermost step of PUBLISH: into the coalescer, with the trace of the span around."""
        message, deadline = work.message, work.deadline
        if message is None or deadline is None:
            raise Misuse("a PUBLISH chain was given work without a message or a deadline")
        carrier = self._ports.observer.carrier(work)
        if carrier:
            message = traced(message, carrier)
        return self._coalescer.publish(message, deadline)


async def unsent_on_failure(
    act: Awaitable[object], what: str, *, clock: Clock, until: float, id: str
) -> None:
    """Do, by `until` (monotonic), what comes before the sending of the message of this id.

    Whatever goes wrong then, the message was not sent: `NotSent` with its id and the cause. Only
    `Misuse` passes as it is.
    """
    try:
        with clock.expire_at(until, coarse=False):
            await act
    except Misuse:
        raise
    except Exception as error:
        why = summary(error)
        if isinstance(error, TimeoutError) and clock.now() >= until:
            why = "the broker did not answer by the deadline"
        raise NotSent(f"message {id!r} was not sent: {what}: {why}", id=id) from error


_FIELDS = ("traceparent", "tracestate")


def traced(message: Message, carrier: Mapping[str, str]) -> Message:
    """The message with the carrier's trace headers; baggage and B3 travel among its headers."""
    more = {name: text for name, text in carrier.items() if name not in _FIELDS}
    headers = {**message.headers, **more} if more else message.headers
    return replace(
        message,
        traceparent=carrier.get("traceparent"),
        tracestate=carrier.get("tracestate"),
        headers=headers,
    )


def trace_headers(message: Message) -> Mapping[str, str]:
    """The message's headers, its trace context among them: what a handler's sends go on with."""
    if message.traceparent is None:
        return message.headers
    headers = {**message.headers, "traceparent": message.traceparent}
    return headers if message.tracestate is None else headers | {"tracestate": message.tracestate}
