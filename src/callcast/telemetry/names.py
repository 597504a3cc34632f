"""All names that callcast gives to spans, metrics and attributes, and to the fields of a log line.

Those without ``callcast.`` are of the OpenTelemetry semantic conventions v1.44.0.
"""

from __future__ import annotations

SCOPE = "callcast"
"""The instrumentation scope of every span and metric."""
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

# Attributes of the conventions.
ERROR_TYPE = "error.type"
HTTP_METHOD = "http.request.method"
HTTP_RESEND_COUNT = "http.request.resend_count"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
MESSAGING_BATCH_COUNT = "messaging.batch.message_count"
MESSAGING_CONVERSATION = "messaging.message.conversation_id"
MESSAGING_DESTINATION = "messaging.destination.name"
MESSAGING_GROUP = "messaging.consumer.group.name"
MESSAGING_MESSAGE_ID = "messaging.message.id"
MESSAGING_OPERATION = "messaging.operation.name"
MESSAGING_OPERATION_TYPE = "messaging.operation.type"
MESSAGING_ROUTING_KEY = "messaging.rabbitmq.destination.routing_key"
MESSAGING_SYSTEM = "messaging.system"
MESSAGING_TEMPLATE = "messaging.destination.template"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
URL_FULL = "url.full"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"
URL_TEMPLATE = "url.template"

# Attributes of our own.
ATTEMPT = "callcast.attempt"
BY = "callcast.rejected.by"
CIRCUIT_STATE_NAME = "callcast.circuit.state.name"
CONSUMER = "callcast.consumer"
CRASHES = "callcast.delivery.crashes"
HANDLER = "callcast.handler"
OPERATION = "callcast.operation"
OUTCOME = "outcome"
PEER = "callcast.peer"
ROUND = "callcast.delivery.round"
SERVICE = "callcast.service"

# Values of attributes.
OTHER = "_OTHER"
"""Stands for every value beyond the bound of distinct ones (a value of the conventions)."""
CREATE = "create"
PROCESS = "process"
PUBLISH = "publish"
SEND = "send"

# Metrics of the conventions.
HTTP_CLIENT_DURATION = "http.client.request.duration"
HTTP_SERVER_ACTIVE = "http.server.active_requests"
HTTP_SERVER_DURATION = "http.server.request.duration"
MESSAGING_CLIENT_DURATION = "messaging.client.operation.duration"
MESSAGING_CONSUMED = "messaging.client.consumed.messages"
MESSAGING_PROCESS_DURATION = "messaging.process.duration"
MESSAGING_SENT = "messaging.client.sent.messages"

# Metrics of our own.
BULKHEAD_IN_FLIGHT = "callcast.bulkhead.in_flight"
BULKHEAD_REJECTED = "callcast.bulkhead.rejected"
CALL_DURATION = "callcast.call.duration"
CALL_REJECTED = "callcast.call.rejected"
CIRCUIT_STATE = "callcast.circuit.state"
CIRCUIT_TRANSITIONS = "callcast.circuit.transitions"
CONSUMER_LAG = "callcast.consumer.lag"
CONSUMER_LAG_TIME = "callcast.consumer.lag.time"
CONSUMER_REBUILT = "callcast.consumer.rebuilt"
DELIVERY_ATTEMPTS = "callcast.delivery.attempts"
DLQ_DEPTH = "callcast.dlq.depth"
DLQ_MESSAGES = "callcast.dlq.messages"
INBOX_DUPLICATES = "callcast.inbox.duplicates"
KILL_SWITCH_STATE = "callcast.kill_switch.state"
LEASES_LOST = "callcast.lease.lost"
LOOP_BLOCKED = "callcast.loop.blocked"
OUTBOX_AGE = "callcast.outbox.age"
OUTBOX_PENDING = "callcast.outbox.pending"
QUEUE_DEPTH = "callcast.queue.depth"
QUEUE_TIME = "callcast.queue.time"
RETRY_ATTEMPTS = "callcast.retry.attempts"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Bucket boundaries that the conventions ask for in duration histograms."""
ATTEMPTS = (1, 2, 3, 4, 5, 8, 12, 16, 20)
"""Bucket boundaries of attempts: a message has 20 by default."""

# Headers.
BAGGAGE = "baggage"
REDRIVE_COUNT = "callcast-redrive-count"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

# Fields of a log record.
LOG_CAUSATION = "causation_id"
LOG_CORRELATION = "correlation_id"
LOG_FIELDS = "fields"
LOG_MESSAGE_ID = "message_id"
LOG_SPAN = "span_id"
LOG_TRACE = "trace_id"
