"""Request and reply over the broker: who asked gets an answer, also when the answer is an error."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec.structs import replace

from callcast.core.contract import Event, Operation
from callcast.core.errors import CallcastError, Misuse, NotSent, Remote, Unanswered
from callcast.core.message import Message
from callcast.core.names import REPLIES, REPLY_ERRORS, checked_name
from callcast.core.outcome import DONE, Dead, Outcome, Release
from callcast.core.work import Next, Work
from callcast.ports.broker import Broker, Browses, Retires, Source
from callcast.ports.clock import Clock
from callcast.runtime.envelope import REPLY_TO
from callcast.runtime.owner import is_short_of_dead, short
from callcast.transports.problem import CONTENT_TYPE, Problem, problem_of, read_problem, unexpected

REPLY_TYPE = "callcast-reply-type"
"""Header of a cast that wants an answer: the name of the event that carries it."""
REPLY_PROBLEM = "callcast-reply-problem"
"""Header of an answer that is an error, a problem detail: its HTTP status."""

RETRY_AFTER = 1.0
"""Seconds until a message whose answer could not be sent is handled again."""

_NAMESPACE = uuid.UUID("5ccf1a52-6b8e-5c0f-9f0a-0d6c5b1f0a77")
"""Namespace of derived reply ids: a rerun answers under the same id, so an inbox removes it."""


def answer_by(operation: Operation[Any, Any], event: Event[Any]) -> Mapping[str, str]:
    """The headers of a cast whose result is published as `event`; `Misuse` when it does not fit."""
    if event.type != operation.response:
        raise Misuse(
            f"reply_to={event.name!r} carries {event.type!r}, but {operation.name!r} answers"
            f" {operation.response!r}: the event's type must be the operation's response"
        )
    if event.key is not None:
        raise Misuse(f"reply_to={event.name!r}: an answer has no order, so its event has no key=")
    return {REPLY_TO: event.topic, REPLY_TYPE: event.name}


def reply_to(message: Message, *, source: str, body: bytes, now: float) -> Message | None:
    """The message that answers `message`, or None when it wants no answer.

    Raises `CallcastError` for a reply address that is no name: it came from outside.
    """
    topic = message.headers.get(REPLY_TO)
    if topic is None:
        return None
    checked_name(topic, "reply address")
    type_ = message.headers.get(REPLY_TYPE, topic)
    id_ = str(uuid.uuid5(_NAMESPACE, f"{source}\n{message.source}\n{message.id}"))
    return Message(
        id_,
        source,
        type_,
        topic,
        body,
        time=now,
        correlation_id=message.correlation_id or message.id,
        causation_id=message.id,
        traceparent=message.traceparent,
        tracestate=message.tracestate,
        # The address of a request goes with who asked: then the answer is of use to nobody, and
        # must not be tried again, or the handler run again, for want of a hearer.
        unheard=REPLY_ERRORS in message.headers,
    )


class AnswerErrors:
    """Layer outside `Recover`: a request that ends in the dead letters is answered with why.

    Without it the asker would wait for its whole deadline to learn nothing.
    """

    def __init__(
        self, source: str, clock: Clock, send: Callable[[Message], Awaitable[object]]
    ) -> None:
        self._source = source
        self._clock = clock
        self._send = send

    async def __call__(self, work: Work, proceed: Next[Outcome]) -> Outcome:
        """Do the work; an answer that cannot be sent now lets the message come again."""
        outcome = await proceed(work)
        message = work.message
        if not isinstance(outcome, Dead) or message is None:
            return outcome
        if REPLY_ERRORS not in message.headers:
            return outcome
        problem = _problem(outcome, message)
        body = problem.body(message.id)
        try:
            answer = reply_to(message, source=self._source, body=body, now=self._clock.wall())
            if answer is not None:
                status = str(problem.status)
                await self._send(replace(answer, headers={REPLY_PROBLEM: status}))
        except (NotSent, Unanswered) as error:
            return Release(RETRY_AFTER, f"its answer could not be sent: {error}")
        # Who asked has heard that it failed: no further attempt may make that untrue.
        return replace(outcome, exhausted=False)


def _problem(outcome: Dead, message: Message) -> Problem:
    """What the asker may know: a refusal in its words, anything else by its kind alone."""
    known = None if outcome.cause is None else problem_of(outcome.cause)
    return known or unexpected(message.correlation_id or message.id)


async def retire_abandoned(broker: Broker) -> None:
    """Retire the reply addresses of processes of this machine that died without doing so.

    A broker that cannot be looked through or end a group, or one that is away now, keeps them:
    whoever asks next tries again. Addresses of other machines are theirs to retire.
    """
    if not (isinstance(broker, Browses) and isinstance(broker, Retires)):
        return
    try:
        for source in await broker.sources():
            if _is_abandoned(source.topic):
                await broker.retire(source)
    except CallcastError:
        return


def _is_abandoned(topic: str) -> bool:
    if not topic.startswith(REPLIES):
        return False
    *_, process, _instance = topic.split(".")
    return is_short_of_dead(process)


class Inquiries:
    """The requests of one bus that wait for their answer, each process at its own address."""

    def __init__(self, name: str, instance: str, clock: Clock) -> None:
        topic = f"{REPLIES}{name}.{short()}.{instance}"
        self._clock = clock
        self.source: Source = Source(topic, name)
        self.contract: Event[None] = Event(topic, None)
        self.headers: Mapping[str, str] = {REPLY_TO: topic, REPLY_TYPE: topic, REPLY_ERRORS: "1"}
        self._waiting: dict[str, asyncio.Future[Message]] = {}  # changed on the loop only

    async def ask(
        self, message: Message, send: Callable[[float], Awaitable[object]], within: float
    ) -> bytes:
        """Have a request sent and wait for the body of its answer, for `within` seconds in all.

        `send` is told by when (monotonic) it must end; what it raises passes through. Raises
        `Remote` for an answer that is an error, `Unanswered` when none came in time.
        """
        until = self._clock.now() + within
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[message.id] = future
        try:
            await send(until)
            with self._clock.expire_at(until, coarse=False):
                answer = await future
        except TimeoutError as error:
            raise Unanswered(
                f"no answer to {message.type!r} within {within:g} s; it stays queued and may"
                " still be handled",
                id=message.id,
            ) from error
        finally:
            del self._waiting[message.id]
        if REPLY_PROBLEM in answer.headers:
            raise self._error(answer)
        return answer.body

    async def receive(self, work: Work) -> Outcome:
        """Hand an answer to who asked; one that nobody waits for any more is dropped."""
        message = work.message
        future = None if message is None else self._waiting.get(message.causation_id or "")
        if future is not None and message is not None and not future.done():
            future.set_result(message)
        return DONE

    def _error(self, answer: Message) -> Remote:
        status = int(answer.headers[REPLY_PROBLEM])
        headers = {"Content-Type": CONTENT_TYPE}
        return read_problem(status, headers, answer.body, wall=self._clock.wall()).remote()
