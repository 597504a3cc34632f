"""Where a copy goes when a message cannot stay where it is: written first, then the original goes.

| a message that                       | goes to                        | its copy says     |
|--------------------------------------|--------------------------------|-------------------|
| is `Later`                           | a step of the group's ladder   | its round + 1     |
| is not due yet when it comes         | the next step                  | as before         |
| is `Dead`                            | the group's dead letters, or   | the reason        |
|                                      | the exchange that others have  |                   |
| has crashed twice                    | the group's suspects           | how often         |
| is ordered and comes from the ladder | its lane                       | as before         |

A process that dies between the two leaves both: a duplicate, known by its id.
"""

from __future__ import annotations

from callcast.brokers.rabbitmq import deaths, foreign
from callcast.brokers.rabbitmq.desk import Held
from callcast.brokers.rabbitmq.ladder import STEPS, step
from callcast.brokers.rabbitmq.letters import Letter, letter, with_headers
from callcast.brokers.rabbitmq.names import Names, routing_key
from callcast.brokers.rabbitmq.wire import Arrived, Way, headers_of
from callcast.core.message import Message
from callcast.core.outcome import Dead, Later, dead_letter, noted


def of_verdict(names: Names, entry: Held, verdict: Later | Dead, *, wall: float) -> Letter:
    """The copy of a message that is put off or dead."""
    if isinstance(verdict, Dead):
        message = dead_letter(foreign.named(entry.message), verdict)
        place = names.dead_place("" if entry.raw is None else entry.raw.routing_key)
        copy = _copy(place, message, Way(round=entry.round), of=entry)
        attempts = int(message.headers.get(deaths.ATTEMPTS, entry.round + 1))
        said = deaths.headers_of(_death(names, entry), verdict.reason, attempts=attempts, wall=wall)
        return with_headers(copy, said)
    message = noted(entry.message, verdict.notes)
    due = wall + verdict.delay if verdict.delay > 0 else 0.0
    way = Way(round=entry.round + 1, due=due)
    # Less than a step is waited out where it comes in.
    queue = names.later(step(verdict.delay)) if verdict.delay >= STEPS[0] else names.work[0]
    return _copy(("", queue), message, way, of=entry)


def of_early(names: Names, arrived: Arrived, left: float) -> Letter:
    """The copy of a message that came so many seconds before its time."""
    way = Way(arrived.round, arrived.crashes, arrived.due)
    return _copy(("", names.later(step(left))), arrived.message, way, of=arrived)


def of_suspect(names: Names, arrived: Arrived, crashes: int) -> Letter:
    """The copy of a message that is to run alone."""
    way = Way(arrived.round, crashes, arrived.due)
    return _copy(("", names.suspects), arrived.message, way, of=arrived)


def of_late(names: Names, arrived: Arrived) -> Letter:
    """The copy of a scheduled message for its lane."""
    way = Way(arrived.round, arrived.crashes, arrived.due)
    return _copy(("", names.queue_of(arrived.message)), arrived.message, way, of=arrived)


def _death(names: Names, entry: Held) -> deaths.Death:
    if entry.raw is not None:
        return deaths.Death(entry.queue, entry.raw.exchange, entry.raw.routing_key)
    return deaths.Death(entry.queue, names.source.topic, routing_key(entry.message))


def _copy(place: tuple[str, str], message: Message, way: Way, *, of: Held | Arrived) -> Letter:
    if of.raw is not None:
        return foreign.copy(place, message, way, raw=of.raw)
    return letter(place, message, headers_of(message, way), published=of.published)
