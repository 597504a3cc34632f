"""``callcast backup``: copy an embedded broker's file while it is in use."""

from __future__ import annotations

from pathlib import Path

import click

from callcast.cli.output import note
from callcast.runtime import registry


@click.command(
    epilog="""\b
Examples:
  callcast backup shop.db backups/shop.db
  for file in shop*.db; do callcast backup $file backups/$file; done
"""
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path, target: Path) -> None:
    """Copy a SQLite FILE, a broker's or a service's, to TARGET while it is in use.

    TARGET is complete or not there at all; a file that is there already is not overwritten.
    """
    registry.backup_sqlite(str(file), str(target))
    note(f"{file} is copied to {target}")
