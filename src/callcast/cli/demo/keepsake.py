"""What stays of a demo: its record, so that one order can be looked at afterwards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from callcast.core.errors import CallcastError
from callcast.runtime.bus import Bus
from callcast.runtime.policy import Policy
from callcast.runtime.recording import recording
from callcast.runtime.registry import backup_sqlite
from callcast.runtime.settings import Settings, Table
from callcast.runtime.system import system_ports

NAME = "demo.record"
SPANS = "all"


def kept(record: Path) -> str:
    """Put the record where it stays, in place of the last demo's; its path.

    Empty where there is none, or no room for it: the account stands without it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "callcast"
    part = cache / f"{NAME}.{os.getpid()}"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return ""
    try:
        backup_sqlite(str(record), str(part))
        part.chmod(0o600)
        part.replace(cache / NAME)
    except (OSError, CallcastError):
        part.unlink(missing_ok=True)
        return ""
    return str(cache / NAME)


def ways_to_look(path: str, order: str) -> Sequence[str]:
    """The lines that say how; none where nothing was kept."""
    if not path:
        return ()
    return (
        "Look at it, while it lasts (the next demo replaces it):",
        f"  callcast trace {order} --record {path}",
        f"  callcast top --once --window 900 --record {path}",
    )


def buyers_bus(record: Path, peers: dict[str, str]) -> Bus:
    """A client that does not spare the shop: no retries, no breaker of its own."""
    table = Table(record=str(record), record_spans=SPANS)
    return Bus(
        "memory://",
        name="buyer",
        peers=peers,
        settings=Settings(policy=Policy(retry=None, breaker=None, bulkhead=None)),
        ports=recording(system_ports("memory://"), "memory://", service="buyer", table=table),
    )
