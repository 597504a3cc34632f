"""What code needs of a broker, and how that compares with what is there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeGuard

from msgspec import Struct
from msgspec.structs import replace

from callcast.cli.failure import Failure
from callcast.core.contract import Event, Operation
from callcast.ports.broker import Difference, Source
from callcast.runtime.bus import Bus
from callcast.runtime.host import is_consumed
from callcast.runtime.service import Service

SAME = "as it is needed"

State: TypeAlias = Literal["there", "missing", "differs", "other"]


class Needs(Struct, frozen=True):
    """Topics and groups, each with what needs it."""

    topics: Mapping[str, str]
    sources: Mapping[Source, str]


class Row(Struct, frozen=True):
    """One topic or group: needed, or there, or both.

    `state` is ``there`` (as it is needed), ``missing`` (`apply` makes it), ``differs`` (nobody but
    you can mend it) or ``other`` (there, and no need of this code: another program's, perhaps).
    """

    state: State
    kind: Literal["topic", "group"]
    name: str
    detail: str
    needed_by: str = ""


def needs_of(found: Mapping[str, object]) -> Needs:
    """What these things need, each found under that ``MODULE:NAME``; a `Failure` for others."""
    topics: dict[str, str] = {}
    sources: dict[Source, str] = {}
    for name, each in found.items():
        for source, why in _sources(each, name):
            sources.setdefault(source, why)
            topics.setdefault(source.topic, why)
        if _is_event(each):
            topics.setdefault(each.topic, name)
    return Needs(topics, sources)


def _sources(found: object, name: str) -> Iterable[tuple[Source, str]]:
    if isinstance(found, Service):
        return [(each.source, each.where) for each in found.handlers if is_consumed(each)]
    if isinstance(found, Bus):
        return [one for service in found.services for one in _sources(service, name)]
    if _is_operation(found):
        return [(Source(found.topic, found.service), name)]
    if _is_event(found):
        return []
    raise Failure(
        f"{name} is a {type(found).__name__}: name Services, Buses, Operations or Events",
        fix="callcast topology diff shop.orders:service, for instance",
    )


def _is_event(found: object) -> TypeGuard[Event[Any]]:
    return isinstance(found, Event)


def _is_operation(found: object) -> TypeGuard[Operation[Any, Any]]:
    return isinstance(found, Operation)


def compared(
    needs: Needs, differences: Sequence[Difference], there: Sequence[Source]
) -> Sequence[Row]:
    """Needed topics, needed groups, then what else is there; by name."""
    by_name: dict[str, list[Difference]] = {}
    for difference in differences:
        by_name.setdefault(difference.name, []).append(difference)
    rows: list[Row] = []
    for topic, why in sorted(needs.topics.items()):
        rows += _rows(Row("there", "topic", topic, SAME, why), by_name)
    for source, why in sorted(needs.sources.items(), key=lambda item: str(item[0])):
        rows += _rows(Row("there", "group", str(source), SAME, why), by_name)
    wanted = {str(source) for source in needs.sources}
    others = sorted(str(source) for source in there if str(source) not in wanted)
    return [*rows, *(Row("other", "group", name, "no need of this code") for name in others)]


def _rows(same: Row, differences: Mapping[str, Sequence[Difference]]) -> Sequence[Row]:
    """The row of what is there as it is needed, or one for each difference."""
    return [
        replace(same, state="missing" if one.is_missing else "differs", detail=one.detail)
        for one in differences.get(same.name, ())
    ] or [same]
