"""Java and Maven, from packages of the system when there are none."""

from __future__ import annotations

from pathlib import Path

from .failure import Failed
from .tools import need, run

OLDEST = 17


def java() -> str:
    """The path of a Java that is new enough for these servers."""
    found = str(Path(need("java", f"openjdk-{OLDEST}-jre-headless")).resolve())
    number = run([found, "--version"], "ask Java for its version").split()[1].partition(".")[0]
    if not number.isdigit() or int(number) < OLDEST:
        raise Failed(f"servers need Java {OLDEST} or later, and {found} is {number}")
    return found


def maven(*arguments: str) -> None:
    """Have Maven do that."""
    run([need("mvn", "maven"), "-B", "-q", *arguments], "fetch with Maven")
