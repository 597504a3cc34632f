"""Commands: ``callcast --help``. Each loads with its command, so that help is there at once."""

from callcast.cli.app import main

__all__ = ["main"]
