"""The live view, on stderr: a table that changes where rich is installed, lines elsewhere."""

from __future__ import annotations

import importlib
import sys
from typing import Protocol

from callcast.cli.demo.watch import Numbers
from callcast.cli.output import note

LINE_EVERY = 2.0
"""Seconds between two lines."""


class View(Protocol):
    """Shows a demo while it runs."""

    def say(self, text: str) -> None:
        """Tell what happens now."""
        ...

    def show(self, numbers: Numbers) -> None:
        """Show the moment."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was. Idempotent."""
        ...


class Lines:
    """One line every now and then."""

    def __init__(self) -> None:
        self._numbers = Numbers()
        self._next = 0.0

    def say(self, text: str) -> None:
        """A line with the time."""
        note(f"{self._numbers.elapsed:5.1f} s  {text}")

    def show(self, numbers: Numbers) -> None:
        """A line with all numbers, when it is time."""
        self._numbers = numbers
        if numbers.elapsed >= self._next:
            self._next = numbers.elapsed + LINE_EVERY
            self.say("  ".join(f"{name} {value}" for name, value in told(numbers)))

    def close(self) -> None:
        """Nothing to put back."""


def told(numbers: Numbers) -> list[tuple[str, str]]:
    """The numbers with their names, in the order in which an order meets them."""
    breakers = ", ".join(f"{peer} {state}" for peer, state in numbers.breakers.items())
    return [
        ("orders", f"{numbers.sent} ({numbers.confirmed} confirmed, {numbers.refused} refused)"),
        ("calls", str(numbers.calls)),
        ("casts", str(numbers.casts)),
        ("breakers", breakers or "closed"),
        ("backlog", f"{numbers.ready} (+{numbers.in_flight} in hand, {numbers.delayed} later)"),
        ("parcels", str(numbers.parcels)),
        ("mails", str(numbers.mails)),
        ("dead letters", str(numbers.dead)),
    ]


def view_for_terminal() -> View:
    """The best view that this terminal and this installation allow."""
    if sys.stderr.isatty():
        try:
            live: View = importlib.import_module("callcast.cli.demo.live").Live()
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("rich"):
                raise
        else:
            return live
    return Lines()
