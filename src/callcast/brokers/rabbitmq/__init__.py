"""RabbitMQ: quorum queues, confirmed publishes, dead letters and delays that survive everything."""

from callcast.brokers.rabbitmq.broker import RabbitBroker

__all__ = ["RabbitBroker"]
