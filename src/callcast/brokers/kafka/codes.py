"""The driver's own error codes: their names begin with an underscore, and yet they are public."""

from __future__ import annotations

from confluent_kafka import KafkaError

ALL_BROKERS_DOWN: int = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - see above
AUTHENTICATION: int = KafkaError._AUTHENTICATION  # noqa: SLF001 - see above
BAD_MESSAGE: int = KafkaError._BAD_MSG  # noqa: SLF001 - see above
FATAL: int = KafkaError._FATAL  # noqa: SLF001 - see above
NO_COORDINATOR: int = KafkaError._WAIT_COORD  # noqa: SLF001 - see above
NO_OFFSET: int = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001 - see above
PARTITION_END: int = KafkaError._PARTITION_EOF  # noqa: SLF001 - see above
PURGED: int = KafkaError._PURGE_QUEUE  # noqa: SLF001 - see above
QUEUE_FULL: int = KafkaError._QUEUE_FULL  # noqa: SLF001 - see above
RESOLVE: int = KafkaError._RESOLVE  # noqa: SLF001 - see above
TIMED_OUT: int = KafkaError._TIMED_OUT  # noqa: SLF001 - see above
TRANSPORT: int = KafkaError._TRANSPORT  # noqa: SLF001 - see above
UNKNOWN_PARTITION: int = KafkaError._UNKNOWN_PARTITION  # noqa: SLF001 - see above
UNKNOWN_TOPIC: int = KafkaError._UNKNOWN_TOPIC  # noqa: SLF001 - see above
