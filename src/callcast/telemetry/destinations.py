"""Where a message goes, as the conventions name it on RabbitMQ: exchange, routing key, queue.

| work     | ``messaging.destination.name``            |
|----------|-------------------------------------------|
| PUBLISH  | ``{exchange}:{routing key}``              |
| CONSUME  | ``{exchange}:{routing key}:{queue}``      |

What is empty is left out, and a queue that is called like its routing key. Span names hold the
topic, which is ``messaging.destination.template``. On other brokers the topic is the destination.
"""

from __future__ import annotations

from callcast.core.amqp import Address, address_of, share_of
from callcast.core.contract import Event
from callcast.core.message import Message
from callcast.core.work import Kind, Work
from callcast.telemetry import names

DEFAULT = "amq.default"
"""What the conventions call the exchange without a name, where there is no routing key either."""


def destination(work: Work, system: str) -> dict[str, str | int]:
    """The attributes of where this message goes or comes from, beyond its topic."""
    message = work.message
    if system != "rabbitmq" or message is None:
        return {}
    address = _address(message)
    queue = _queue(work, message) if work.kind is Kind.CONSUME else ""
    if work.kind is Kind.CONSUME and _bound_queue(work):
        address = Address("", "")  # by whose exchange it came there is theirs to know
    parts = [address.exchange, address.routing_key]
    if queue != address.routing_key:
        parts.append(queue)
    said: dict[str, str | int] = {
        names.MESSAGING_DESTINATION: ":".join(filter(None, parts)) or DEFAULT,
        names.MESSAGING_TEMPLATE: message.topic,
    }
    if address.routing_key:
        said[names.MESSAGING_ROUTING_KEY] = address.routing_key
    return said


def _address(message: Message) -> Address:
    if message.group is not None:  # past the exchange, to the queue of that group
        return Address("", f"{message.topic}/{message.group}")
    return address_of(message.headers) or Address(message.topic, share_of(message.key))


def _queue(work: Work, message: Message) -> str:
    bound = _bound_queue(work)
    if bound:
        return bound
    base = f"{message.topic}/{work.peer}"
    # Messages have a key where their event is ordered; each of its lanes is a queue.
    return base if message.key is None else f"{base}/{int(share_of(message.key), 16)}"


def _bound_queue(work: Work) -> str:
    contract = work.contract
    if isinstance(contract, Event) and contract.amqp is not None:
        return contract.amqp.queue
    return ""
