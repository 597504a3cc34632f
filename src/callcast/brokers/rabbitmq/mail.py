"""Publishing a batch: what is refused at once, what is written, what the answers mean."""

from __future__ import annotations

from collections.abc import Sequence

from callcast.brokers.rabbitmq import foreign
from callcast.brokers.rabbitmq.confirms import Fate
from callcast.brokers.rabbitmq.faults import NOT_FOUND, ChannelLost, is_refused_at
from callcast.brokers.rabbitmq.house import House
from callcast.brokers.rabbitmq.letters import Letter, letter
from callcast.brokers.rabbitmq.names import routing_key
from callcast.brokers.rabbitmq.sender import Answer
from callcast.brokers.rabbitmq.thread import Work
from callcast.brokers.rabbitmq.wire import PUBLISHED, headers_of
from callcast.core.amqp import TO, address_of
from callcast.core.errors import CallcastError, NotSent, Unanswered, Unpublished
from callcast.core.message import Message
from callcast.ports.broker import Traits


def post(house: House, messages: Sequence[Message], traits: Traits) -> Work[list[Answer]]:
    """Publish all; what became of each. On the thread's loop."""
    if all(_is_plain(house, message, traits) for message in messages):
        wall, keeps = house.clock.wall(), traits.log_kept > 0
        letters = [_letter(house, message, wall, keeps=keeps) for message in messages]
        posted = house.sender.post(letters)
        if posted is not None:
            return posted
    return _post_carefully(house, messages, traits)


def _is_plain(house: House, message: Message, traits: Traits) -> bool:
    """Whether there is surely nothing to be asked or refused before it is written."""
    is_heard = traits.log_kept <= 0 or message.unheard or house.topology.has_hearers(message.topic)
    return is_heard and message.group is None and len(message.body) <= traits.body_max_bytes


async def _post_carefully(
    house: House, messages: Sequence[Message], traits: Traits
) -> list[Answer]:
    refusals = await _refusals(house, messages, traits)
    wanted = [index for index, refusal in enumerate(refusals) if refusal is None]
    wall = house.clock.wall()
    keeps = traits.log_kept > 0
    letters = [_letter(house, messages[index], wall, keeps=keeps) for index in wanted]
    try:
        sent: list[Answer] = await house.sender.send(letters)
    except (CallcastError, ChannelLost) as error:
        sent = [_not_sent(messages[index], str(error), error) for index in wanted]
    answers = iter(sent)
    return [next(answers) if refusal is None else refusal for refusal in refusals]


def check(house: House, messages: Sequence[Message], answers: Sequence[Answer]) -> None:
    """Raise `Unpublished` unless all are confirmed. On any thread."""
    if all(answer is Fate.CONFIRMED for answer in answers):
        return
    raise Unpublished(
        [
            answer if isinstance(answer, NotSent) else _meaning(house, message, answer)
            for message, answer in zip(messages, answers, strict=True)
        ]
    )


async def _refusals(
    house: House, messages: Sequence[Message], traits: Traits
) -> list[NotSent | None]:
    errors: list[NotSent | None] = []
    stopped: set[tuple[str, str]] = set()  # keys whose first failure ends them
    largest = traits.body_max_bytes
    for message in messages:
        detail = ""
        if message.key is not None and (message.topic, message.key) in stopped:
            detail = f"an earlier message of key {message.key!r} in this batch was not sent"
        elif len(message.body) > largest:
            detail = (
                f"its body has {len(message.body)} bytes, the limit is {largest}:"
                " store it elsewhere and send where it is"
            )
        elif not await _is_heard(house, message, keeps=traits.log_kept > 0):
            detail = _nobody(message)
        errors.append(_not_sent(message, detail, None) if detail else None)
        if detail and message.key is not None:
            stopped.add((message.topic, message.key))
    return errors


async def _is_heard(house: House, message: Message, *, keeps: bool) -> bool:
    """Whether anybody hears it, as far as the broker itself would not say so.

    Where a log is kept it always finds a queue; the catalog knows better. And only the catalog
    knows how the messages of one group alone are to be addressed.
    """
    if message.group is not None:
        return await house.topology.known(message.topic, message.group) is not None
    if TO in message.headers:
        return True
    if message.unheard or not keeps or house.topology.has_hearers(message.topic):
        return True
    await house.topology.refresh()
    return house.topology.has_hearers(message.topic)


def _letter(house: House, message: Message, wall: float, *, keeps: bool) -> Letter:
    to = None if message.group is not None else address_of(message.headers)
    if to is not None:
        return foreign.plain(message, to, wall)
    table = headers_of(message)
    if keeps:
        table[PUBLISHED] = repr(wall)
    place = (message.topic, routing_key(message))
    if message.group is not None:
        place = ("", house.topology.queue_of(message))
    return letter(place, message, table, published=wall, is_mandatory=not message.unheard)


def _meaning(house: House, message: Message, answer: Answer) -> NotSent | Unanswered | None:
    if answer is Fate.CONFIRMED:
        return None
    if answer is Fate.RETURNED:
        return _not_sent(message, _nobody(message), None)
    if answer is Fate.REFUSED:
        return _unanswered(message, "RabbitMQ refused it for one of its queues", None)
    if isinstance(answer, ChannelLost):
        return _of_loss(house, message, answer)
    if isinstance(answer, Exception):
        return _not_sent(message, f"it cannot be written: {answer}", None)
    return _unanswered(message, "the connection was lost before it was confirmed", None)


def _of_loss(house: House, message: Message, error: ChannelLost) -> NotSent | Unanswered | None:
    to = address_of(message.headers) if message.group is None else None
    exchange = message.topic if to is None else to.exchange
    if message.group is not None:
        exchange = ""  # straight to the group's queue
    if error.code == NOT_FOUND and f"'{exchange}'" in error.text:
        if to is not None:
            detail = f"there is no exchange {exchange!r}: have it made, or check the name"
            return _not_sent(message, detail, None)
        return None if message.unheard else _not_sent(message, _nobody(message), None)
    if is_refused_at(error, exchange):
        refusal = house.topology.refused(error, f"publish to {exchange or message.group!r}")
        return _not_sent(message, str(refusal), refusal)
    return _unanswered(message, str(error), error)


def _nobody(message: Message) -> str:
    if message.group is not None:
        return f"there is no group {message.topic}/{message.group}"
    to = address_of(message.headers)
    if to is not None:
        return (
            f"no queue is bound to exchange {to.exchange!r} for routing key {to.routing_key!r}:"
            " check both, or say unheard=True on the event"
        )
    return (
        f"no group has ever subscribed to {message.topic!r}: check the name, start a service that"
        " listens, or say unheard=True on the event"
    )


def _not_sent(message: Message, detail: str, cause: Exception | None) -> NotSent:
    error = NotSent(f"message {message.id!r} was not sent: {detail}", id=message.id)
    error.__cause__ = cause
    return error


def _unanswered(message: Message, detail: str, cause: Exception | None) -> Unanswered:
    error = Unanswered(
        f"message {message.id!r} was sent and not confirmed: {detail}; it may be stored: publish it"
        " again under the same id",
        id=message.id,
    )
    error.__cause__ = cause
    return error
