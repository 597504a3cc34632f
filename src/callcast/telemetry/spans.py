"""What the span of a piece of work is called and says: pure, by the conventions.

| work                | kind     | name                  |
|---------------------|----------|-----------------------|
| CALL, all attempts  | INTERNAL | ``call {operation}``  |
| one attempt of it   | CLIENT   | ``{method} {path}``   |
| SERVE               | SERVER   | ``{method} {route}``  |
| PUBLISH             | PRODUCER | ``publish {topic}``   |
| into an outbox      | PRODUCER | ``create {topic}``    |
| CONSUME             | CONSUMER | ``process {topic}``   |
| a batch fetched     | CLIENT   | ``receive {topic}``   |
| a batch settled     | CLIENT   | ``settle {topic}``    |

Neither payloads nor query strings become attributes, and names hold templates, never ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct
from opentelemetry.trace import SpanKind

from callcast.core.answer import answered
from callcast.core.contract import Event, Operation
from callcast.core.errors import CallcastError, Remote
from callcast.core.outcome import Dead, Later
from callcast.core.work import Kind, Work
from callcast.policies.notes import type_name
from callcast.ports.observer import Moved
from callcast.telemetry import names
from callcast.telemetry.destinations import destination

Attributes: TypeAlias = dict[str, str | int]
Place: TypeAlias = Mapping[str, str | int]
"""The attributes of where a broker is: the same for all its messages."""
NOWHERE: Place = {}


class Described(Struct, frozen=True):
    """A span before it starts."""

    name: str
    kind: SpanKind
    attributes: Attributes


def described(work: Work, system: str, at: Place = NOWHERE) -> Described:
    """The span around this work; `system` is the broker's ``messaging.system``, `at` its place."""
    if work.kind is Kind.CALL:
        return Described(f"call {work.name}", SpanKind.INTERNAL, call_labels(work))
    if work.kind is Kind.SERVE:
        labels = served_labels(work)
        name = f"{labels[names.HTTP_METHOD]} {labels[names.HTTP_ROUTE]}"
        # Within the process there is no path but the template.
        path = work.url.partition(":")[2] or labels[names.HTTP_ROUTE]
        own = {names.OPERATION: work.name, names.URL_PATH: path}
        return Described(name, SpanKind.SERVER, {**labels, **own})
    labels = message_labels(work, system, at)
    attributes = {**labels, **_message_attributes(work), **destination(work, system)}
    topic = labels[names.MESSAGING_DESTINATION]
    if work.kind is Kind.PUBLISH:
        act = labels[names.MESSAGING_OPERATION]
        return Described(f"{act} {topic}", SpanKind.PRODUCER, attributes)
    attributes |= {names.ROUND: work.round, names.CRASHES: work.crashes}
    return Described(f"{names.PROCESS} {topic}", SpanKind.CONSUMER, attributes)


def described_attempt(work: Work, url: str) -> Described:
    """The span of one attempt of a call at this URL."""
    labels = attempt_labels(work, url)
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    attributes = {
        **labels,
        names.OPERATION: work.name,
        names.PEER: work.peer,
        names.URL_FULL: f"{parts.scheme}://{host}{parts.path}",
    }
    if work.attempt > 1:
        attributes[names.HTTP_RESEND_COUNT] = work.attempt - 1
    name = f"{labels[names.HTTP_METHOD]} {labels[names.URL_TEMPLATE]}"
    return Described(name, SpanKind.CLIENT, attributes)


def described_batch(batch: Moved, system: str, at: Place = NOWHERE) -> Described:
    """The span of a batch that was fetched or settled."""
    attributes: Attributes = {
        names.MESSAGING_OPERATION: batch.operation,
        names.MESSAGING_OPERATION_TYPE: batch.operation,
        names.MESSAGING_SYSTEM: system,
        names.MESSAGING_DESTINATION: batch.topic,
        names.MESSAGING_GROUP: batch.group,
        **at,
    }
    if len(batch.messages) == 1:
        attributes[names.MESSAGING_MESSAGE_ID] = batch.messages[0].id
    else:
        attributes[names.MESSAGING_BATCH_COUNT] = len(batch.messages)
    return Described(f"{batch.operation} {batch.topic}", SpanKind.CLIENT, attributes)


# Labels: attributes of few values, fit for metrics too.


def call_labels(work: Work) -> Attributes:
    """Labels of a call or of a guarded function."""
    return {names.OPERATION: work.name, names.PEER: work.peer}


def attempt_labels(work: Work, url: str) -> Attributes:
    """Labels of one attempt."""
    parts = urlsplit(url)
    labels: Attributes = {
        names.SERVER_ADDRESS: parts.hostname or "",
        names.SERVER_PORT: parts.port or (443 if parts.scheme == "https" else 80),
    }
    method, template = _route(work)
    return {names.HTTP_METHOD: method, names.URL_TEMPLATE: template, **labels}


def served_labels(work: Work) -> Attributes:
    """Labels of a served call; one from the same process counts as the request it stands for."""
    method, template = _route(work)
    scheme = work.url.partition(":")[0] or "http"
    return {names.HTTP_METHOD: method, names.HTTP_ROUTE: template, names.URL_SCHEME: scheme}


def message_labels(work: Work, system: str, at: Place = NOWHERE) -> Attributes:
    """Labels of a message that is published or processed."""
    act, kind = _act(work)
    labels: Attributes = {
        names.MESSAGING_OPERATION: act,
        names.MESSAGING_OPERATION_TYPE: kind,
        names.MESSAGING_SYSTEM: system,
        names.MESSAGING_DESTINATION: _topic(work),
    }
    if act != names.CREATE:  # what goes into an outbox meets no broker yet
        labels |= at
    if work.kind is Kind.CONSUME:
        labels[names.MESSAGING_GROUP] = work.peer
    return labels


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status of the answer that this error is; None of what is no answer."""
    return error.status if isinstance(error, Remote) else None


def answered_status(work: Work, error: BaseException | None) -> int | None:
    """The HTTP status that answers a served call; None where its caller went away."""
    if error is not None and not isinstance(error, Exception):
        return None
    result: object = getattr(work.contract, "response", ...)
    return answered(error, is_void=result is None or result is type(None))


def error_type(error: BaseException, *, is_served: bool = False) -> str:
    """A value of ``error.type``: the status of an answer that we got, else the error's class."""
    if isinstance(error, Remote) and not is_served:
        return str(error.status)
    return type_name(error)


def outcome_type(outcome: Later | Dead) -> str:
    """A value of ``error.type`` for a message that was not handled: why, by one word."""
    named = outcome.notes.get("callcast-error-type")
    return error_label(outcome.reason) if named is None else named


def error_label(text: str) -> str:
    """The class at the front of an error's text (``Late('o-1')``, ``Late: o-1``), or ``_OTHER``."""
    front = text.partition("(")[0].partition(":")[0].strip()
    return front if front.replace(".", "_").isidentifier() else names.OTHER


def error_text(error: BaseException) -> str:
    """What may be said of an error: the text of our own; only the class of others.

    The text of a stranger's error may hold anything, payloads and passwords too.
    """
    return str(error) if isinstance(error, CallcastError) else type_name(error)


def _message_attributes(work: Work) -> Attributes:
    message = work.message
    if message is None:
        return {names.MESSAGING_MESSAGE_ID: work.id}
    attributes: Attributes = {names.MESSAGING_MESSAGE_ID: message.id}
    if message.correlation_id is not None:
        attributes[names.MESSAGING_CONVERSATION] = message.correlation_id
    return attributes


def _act(work: Work) -> tuple[str, str]:
    """Name and type of what is done with a message."""
    if work.kind is Kind.CONSUME:
        return names.PROCESS, names.PROCESS
    # Nobody waits for what has no deadline: a transaction creates it, and it leaves later.
    return (names.CREATE, names.CREATE) if work.deadline is None else (names.PUBLISH, names.SEND)


def _topic(work: Work) -> str:
    if work.message is not None:
        return work.message.topic
    contract = work.contract
    return contract.topic if isinstance(contract, (Operation, Event)) else work.name


def _route(work: Work) -> tuple[str, str]:
    contract = work.contract
    if isinstance(contract, Operation):
        return contract.binding.method, contract.binding.template
    return "POST", work.name
