"""Faults at named places: a process that dies, fails or pauses exactly there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from callcast.core.errors import Misuse

FAILPOINTS = "CALLCAST_FAILPOINTS"
LOG = "CALLCAST_FAILPOINT_LOG"


class InjectedError(Exception):
    """Raised by a place armed with ``raise``."""


class Faults:
    """Failpoints armed by name: ``{"outbox.after_publish": "kill", "inbox.delivered@3": "raise"}``.

    Actions: ``kill`` (SIGKILL to this process), ``raise`` (`InjectedError`), ``pause:0.5`` (block
    for so many seconds), ``stop`` (SIGSTOP, until somebody sends SIGCONT; ``stop:0.2`` blocks for
    so long first, so that other threads come to rest and hold no lock meanwhile). ``name@3`` acts
    at the third hit only, a bare name at every one. Each place that acts is first written, with
    the process id, to the file `log`, and that is flushed to the disk: a fault that never fired
    shows.

    `from_environment` reads ``CALLCAST_FAILPOINTS`` (``name=kill,name@3=raise``) and
    ``CALLCAST_FAILPOINT_LOG``, for child processes.
    """

    def __init__(self, armed: Mapping[str, str], log: str | Path | None = None) -> None:
        self._armed = {_place(name): _checked(action) for name, action in armed.items()}
        self._log = None if log is None else Path(log)
        self.hits: dict[str, int] = {}
        """How often each place was passed."""

    @classmethod
    def from_environment(cls) -> Faults:
        """What the environment of this process arms; nothing when it says nothing."""
        text = os.environ.get(FAILPOINTS, "")
        pairs = (pair.partition("=") for pair in text.split(",") if pair)
        return cls({name.strip(): action for name, _, action in pairs}, os.environ.get(LOG))

    def __call__(self, name: str, /) -> None:
        """Pass the place `name`."""
        hit = self.hits[name] = self.hits.get(name, 0) + 1
        action = self._armed.get((name, hit)) or self._armed.get((name, 0))
        if action is None:
            return
        self._report(name)
        word, _, number = action.partition(":")
        if number:
            time.sleep(float(number))
        if word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif word == "raise":
            raise InjectedError(name)

    def _report(self, name: str) -> None:
        if self._log is None:
            return
        line = f"{os.getpid()} {name}\n".encode()
        file = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, line)
            os.fsync(file)
        finally:
            os.close(file)


def _place(text: str) -> tuple[str, int]:
    """A name and the hit at which it acts; 0 is every one."""
    name, _, hit = text.partition("@")
    if not name or (hit and not hit.isdecimal()):
        raise Misuse(f"failpoint {text!r}: write 'name' or 'name@3'")
    return name, int(hit or 0)


def _checked(action: str) -> str:
    word, _, number = action.partition(":")
    is_timed = word in {"pause", "stop"} and number.replace(".", "", 1).isdecimal()
    if action not in {"kill", "raise", "stop"} and not is_timed:
        raise Misuse(f"failpoint action {action!r}: use kill, raise, stop or pause:SECONDS")
    return action
