"""Finding the local record that a command reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from callcast.cli.failure import Failure
from callcast.core.errors import Unavailable
from callcast.runtime.recording import DEFAULT, record_of
from callcast.runtime.settings import Table, read_table

F = TypeVar("F", bound=Callable[..., object])
R = TypeVar("R")


def record_option(function: F) -> F:
    """``--record PATH`` as `record`."""
    return click.option(
        "--record",
        metavar="PATH",
        help="The local record. Defaults to CALLCAST_RECORD, then to the file beside that of a"
        f" sqlite: broker, then to {DEFAULT} in this folder.",
    )(function)


def record_path(record: str | None, url: str | None) -> str:
    """The record's file; a `Failure` that says how to keep one when there is none."""
    path = record or _configured(url)
    if not Path(path).is_file():
        raise Failure(
            f"there is no record {path}: a program with a sqlite: broker keeps one beside it, any"
            " other with CALLCAST_RECORD=on",
            fix="--record PATH, or --broker sqlite:///FILE of the program",
        )
    return path


def reading(path: str, read: Callable[[str], R]) -> R:
    """What `read` finds in the record; a `Failure` when the file is no record."""
    try:
        return read(path)
    except Unavailable as error:
        raise Failure(str(error), fix="--record PATH names another file") from error


def _configured(url: str | None) -> str:
    table = read_table(Path.cwd())
    broker = url or table.broker or ""
    found = record_of(broker, table) or record_of(broker, Table(record="on"))
    return DEFAULT if found is None else found.path
