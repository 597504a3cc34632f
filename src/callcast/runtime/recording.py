"""Whether a bus keeps a local record, and where.

| ``CALLCAST_RECORD`` | broker           | file                            |
|---------------------|------------------|---------------------------------|
| not set             | ``sqlite:``      | the broker's, with ``.record``  |
| not set             | any other        | none                            |
| ``on``              | ``sqlite:``      | the broker's, with ``.record``  |
| ``on``              | any other        | ``callcast.record`` in the folder |
| a path              | any              | that one                        |
| ``off``             | any              | none                            |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from callcast.core.errors import Misuse
from callcast.ports.broker import Broker
from callcast.runtime import registry
from callcast.runtime.ports import Ports
from callcast.runtime.settings import Table
from callcast.runtime.system import system_of

SUFFIX = ".record"
DEFAULT = "callcast.record"
_OFF = frozenset({"off", "no", "false", "0"})
_ON = frozenset({"on", "yes", "true", "1"})


@dataclass(frozen=True, slots=True)
class Record:
    """Where it is kept, and whether every span is."""

    path: str
    keeps_all: bool = False


def record_of(broker: str | Broker, table: Table) -> Record | None:
    """The record of a bus on this broker; None when it keeps none."""
    said = (table.record or "").strip()
    if said.lower() in _OFF:
        return None
    spans = (table.record_spans or "some").strip().lower()
    if spans not in {"all", "some"}:
        raise Misuse(f"record_spans={table.record_spans!r}: say 'some', or 'all' to keep each span")
    path = said
    if not said or said.lower() in _ON:
        is_embedded = isinstance(broker, str) and urlsplit(broker).scheme == "sqlite"
        if not said and not is_embedded:
            return None
        path = beside(broker) if isinstance(broker, str) and is_embedded else DEFAULT
    return Record(path, keeps_all=spans == "all")


def beside(broker: str) -> str:
    """The record's file beside that of a ``sqlite:`` broker."""
    return registry.sqlite_path(broker) + SUFFIX


def recording(ports: Ports, broker: str | Broker, *, service: str, table: Table) -> Ports:
    """The ports with an observer that keeps a record, if one is to be kept."""
    record = record_of(broker, table)
    if record is None:
        return ports
    system = system_of(broker) if isinstance(broker, str) else broker.traits.name
    observer = registry.recording_observer(ports, service=service, system=system, record=record)
    return replace(ports, observer=observer)
