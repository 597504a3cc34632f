"""What another team has on a RabbitMQ, and who listens to it there."""

from __future__ import annotations

import pika
from pika.adapters.blocking_connection import BlockingChannel
from rabbitmq_parts import topic

from callcast import Amqp, Context, Event, Service, Struct

QUORUM = {"x-queue-type": "quorum"}


class Customer(Struct):
    id: str
    name: str = ""


ADA = Customer("c-1", "Ada")
PLAIN = b'{"id": "c-1", "name": "Ada"}'


class Estate:
    """What another team has: an exchange, a queue bound to it, an exchange of dead letters."""

    def __init__(self, channel: BlockingChannel, **arguments: object) -> None:
        name = topic()
        self.channel = channel
        self.exchange, self.queue = f"{name}.crm", f"{name}.billing"
        self.dlx, self.dead = f"{name}.dlx", f"{name}.dead"
        channel.exchange_declare(self.exchange, "topic", durable=True)
        channel.exchange_declare(self.dlx, "fanout", durable=True)
        channel.queue_declare(self.dead, durable=True)
        channel.queue_bind(self.dead, self.dlx)
        channel.queue_declare(self.queue, durable=True, arguments=arguments or None)
        channel.queue_bind(self.queue, self.exchange, "customer.*")

    def send(self, body: bytes = PLAIN, **properties: object) -> None:
        sent = pika.BasicProperties(**properties)  # type: ignore[arg-type]
        self.channel.basic_publish(self.exchange, "customer.changed", body, sent)

    def read(self, queue: str) -> tuple[pika.BasicProperties, bytes] | None:
        _, properties, body = self.channel.basic_get(queue, auto_ack=True)
        return None if properties is None or body is None else (properties, body)


def changed(**amqp: object) -> Event[Customer]:
    return Event(topic(), Customer, amqp=Amqp(**amqp))  # type: ignore[arg-type]


def listener(event: Event[Customer], seen: list[tuple[Customer, Context]]) -> Service:
    service = Service("billing")

    @service.on(event)
    async def take(customer: Customer, context: Context) -> None:
        seen.append((customer, context))

    return service
