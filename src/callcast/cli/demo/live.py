"""The live view on rich."""

from __future__ import annotations

from rich.console import Console
from rich.live import Live as RichLive
from rich.table import Table

from callcast.cli.demo.view import told
from callcast.cli.demo.watch import Numbers


class Live:
    """A table that changes in place; what is said scrolls above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._numbers = Numbers()
        self._live = RichLive(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def say(self, text: str) -> None:
        """A line above the table."""
        self._console.print(
            f"{self._numbers.elapsed:5.1f} s  {text}", highlight=False, markup=False
        )

    def show(self, numbers: Numbers) -> None:
        """Draw the table anew."""
        self._numbers = numbers
        table = Table(box=None, show_header=False)
        for name, value in told(numbers):
            table.add_row(name, value)
        self._live.update(table, refresh=True)

    def close(self) -> None:
        """Take the table away. Idempotent."""
        self._live.stop()
