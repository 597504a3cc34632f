"""What the adviser reads: files, the APIs of Jaeger and Zipkin, the local record."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

from msgspec.structs import replace

from callcast.advise.model import Interaction, Span, System
from callcast.advise.recorded import from_record
from callcast.advise.traces.measuring import Measuring
from callcast.advise.traces.reading import Reading
from callcast.cli.failure import Failure, Forbidden, Unreachable
from callcast.cli.recorded import reading
from callcast.telemetry.record import reading as record

CHUNK = 1_048_576
TIMEOUT = 30.0
"""Seconds for an answer of a tracing backend."""
TRACES = 1500
"""Traces that are asked for, of each service."""
SQLITE = b"SQLite format 3\x00"


def read_all(names: Sequence[str]) -> System:
    """One system of all files and URLs together; a span that is in two of them counts once."""
    records = [name for name in names if is_record(name)]
    others = [name for name in names if name not in records]
    systems = [_recorded(name) for name in records]
    if others:
        measuring = Measuring(others)
        dropped: Counter[str] = Counter()
        measuring.read(_spans(others, dropped))
        measuring.dropped.update(dropped)
        systems.append(measuring.system())
    return _together(systems)


def is_record(name: str) -> bool:
    """Whether it is the file of a local record."""
    path = Path(name)
    if "://" in name or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def _recorded(name: str) -> System:
    edges, spans = reading(name, record.edges), reading(name, record.spans)
    return from_record(edges, spans, name)


def _together(systems: Sequence[System]) -> System:
    """The first ones win where two know the same: the record counts more than traces do."""
    whole = System()
    for each in reversed(systems):
        interactions: dict[Any, Interaction] = {**whole.interactions, **each.interactions}
        whole = replace(
            whole,
            interactions=interactions,
            handlers={**whole.handlers, **each.handlers},
            window=max(whole.window, each.window),
            traces=whole.traces + each.traces,
            sources=(*each.sources, *whole.sources),
            dropped=Counter(whole.dropped) + Counter(each.dropped),
        )
    return whole


def _spans(names: Sequence[str], dropped: Counter[str]) -> Iterator[Span]:
    for name in names:
        found = Reading(_chunks(name), name)
        yield from found
        dropped.update(found.dropped)


def _chunks(name: str) -> Iterator[bytes]:
    if urlsplit(name).scheme in {"http", "https"}:
        for url in _pages(name):
            yield from _fetched(url)
        return
    try:
        with Path(name).open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise Failure(f"cannot read {name}: {error.strerror}", fix="--from FILE or URL") from error


def _pages(url: str) -> Sequence[str]:
    """The address itself; of a server's root, the addresses where its traces are."""
    parts = urlsplit(url)
    if parts.path.strip("/"):
        return [url]
    base = url.rstrip("/")
    for service, traces in (
        ("/api/services", "/api/traces"),  # Jaeger
        ("/api/v2/services", "/api/v2/traces"),  # Zipkin
    ):
        names = _services(base + service)
        if names is not None and service.startswith("/api/v2"):
            return [f"{base}{traces}?limit={TRACES}"]
        if names is not None:
            return [f"{base}{traces}?service={quote(each)}&limit={TRACES}" for each in names]
    raise Failure(
        f"{url} answers neither as Jaeger does (/api/services) nor as Zipkin (/api/v2/services)",
        fix="name the address of its traces, or a file",
    )


def _services(url: str) -> Sequence[str] | None:
    """The names, whichever of the two it is; None when it is not there."""
    try:
        found: Any = json.loads(b"".join(_fetched(url)))
    except (Failure, ValueError) as error:
        if isinstance(error, (Unreachable, Forbidden)):
            raise
        return None
    names: Any = cast("dict[str, Any]", found).get("data") if isinstance(found, dict) else found
    if not isinstance(names, list):
        return None
    return [each for each in cast("list[object]", names) if isinstance(each, str)]


def _fetched(url: str) -> Iterator[bytes]:
    place = urlsplit(url)._replace(query="").geturl()
    try:
        with closing(urllib.request.urlopen(url, timeout=TIMEOUT)) as answer:  # noqa: S310 - http(s) only, by `_chunks`
            while chunk := answer.read(CHUNK):
                yield chunk
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in {401, 403}:
            raise Forbidden(f"{place} says {error.code}: not permitted") from error
        raise Failure(f"{place} says {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        why = getattr(error, "reason", error)
        raise Unreachable(
            f"cannot reach {place} within {TIMEOUT:.0f} s: {why}",
            fix="check host and port, or save its answer and name the file",
        ) from error
