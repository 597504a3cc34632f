"""Kafka, on confluent-kafka: topics, consumer groups, key lanes inside a partition."""

from callcast.brokers.kafka.broker import KafkaBroker
from callcast.brokers.kafka.options import Options, options_of

__all__ = ["KafkaBroker", "Options", "options_of"]
