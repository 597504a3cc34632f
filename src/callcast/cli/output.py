"""Data on stdout: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import click

F = TypeVar("F", bound=Callable[..., object])

Record: TypeAlias = Mapping[str, object]

FORMATS = ("table", "json", "ndjson")

GAP = "  "


def output_option(function: F) -> F:
    """``-o table|json|ndjson`` as `form`."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="A table for people, JSON for programs.",
    )(function)


def emit(records: Iterable[Record], form: str, columns: Sequence[str]) -> None:
    """Write records: all fields as JSON, or these `columns` as a table."""
    if form == "json":
        click.echo(json.dumps(list(records), indent=2, default=str))
    elif form == "ndjson":
        for record in records:
            click.echo(json.dumps(record, default=str))
    else:
        for line in table(list(records), columns):
            click.echo(line)


def emit_one(record: Record, form: str) -> None:
    """Write one record: as an object in JSON, else a line per field."""
    if form == "table":
        width = max(map(len, record), default=0)
        for name, value in record.items():
            click.echo(f"{name:<{width}}{GAP}{cell(value)}")
    else:
        click.echo(json.dumps(record, indent=2 if form == "json" else None, default=str))


def table(records: Sequence[Record], columns: Sequence[str]) -> list[str]:
    """The lines of a table: a heading, then a line per record; numbers stand to the right."""
    rows = [[cell(record.get(column)) for column in columns] for record in records]
    heading = [column.upper().replace("_", " ") for column in columns]
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    numeric = [
        bool(records) and all(isinstance(record.get(column), int | float) for record in records)
        for column in columns
    ]
    return [
        GAP.join(
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in [heading, *rows]
    ]


def cell(value: object) -> str:
    """One value on one line."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # Names and reasons came from outside: control characters would speak to the terminal.
    return "".join(c if c.isprintable() else " " for c in str(value))


def note(text: str) -> None:
    """Say something to the person at the terminal, on stderr."""
    click.echo(text, err=True)
