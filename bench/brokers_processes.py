"""The processes of ``bench/brokers.py``: each is bounded in time and ends with the bench."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from brokers_work import Task

CHILD = Path(__file__).with_name("brokers_child.py")
PATIENT = {"CALLCAST_PUBLISH_DEADLINE": "60"}
"""Seconds, for callcast: on a busy machine the first publish may have to wait for its 5."""
LIMIT = 240.0
"""Seconds after which a process is killed: longer than any part takes."""


class Child:
    """One contender doing one thing; used as a context manager, which ends it."""

    def __init__(self, task: Task) -> None:
        self._what = f"{task.contender}: {task.part}"
        reading, self._held = os.pipe()  # it ends when this end is closed, by whatever
        command = [sys.executable, str(CHILD), msgspec.json.encode(task).decode()]
        self._process = subprocess.Popen(
            command, env={**os.environ, **PATIENT},
            stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(reading)
        self._limit = threading.Timer(LIMIT, self._process.kill)
        self._limit.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._held)
        self._process.kill()
        self._process.communicate()
        self._limit.cancel()

    def ready(self) -> None:
        """Wait until it consumes."""
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.result()
            raise RuntimeError(f"{self._what} did not start")

    def result(self) -> Mapping[str, Any]:
        """What it measured."""
        out, said = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"{self._what} ended with {self._process.returncode}: {said}")
        found: Mapping[str, Any] = json.loads(out.splitlines()[-1])
        return found


def ask(task: Task) -> Mapping[str, Any]:
    """Have that done by a process of its own."""
    with Child(task) as child:
        return child.result()
