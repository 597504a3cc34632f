"""Settings: defaults of DESIGN section 11, overridden by files, the environment and arguments."""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

import msgspec
from msgspec import Struct

from callcast.core.errors import Misuse
from callcast.policies.recovery import Recovery
from callcast.runtime.policy import Bulkhead, CircuitBreaker, Policy, Retry

T = TypeVar("T")

PREFIX = "CALLCAST_"
PEER_PREFIX = "CALLCAST_PEER_"
MISSPELT = 0.75
"""Names as alike as this are one name, misspelt: ``CALLCAST_BROKR`` is, ``CALLCAST_TEST_X`` not."""
BROKER_DEFAULT = "memory://"


INBOX_RETENTION_LEAST = 7 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a bus behaves where a contract, a handler or a peer does not say otherwise.

    Durations are seconds.
    """

    recovery: Recovery = field(default_factory=Recovery)
    policy: Policy = field(default_factory=Policy)
    publish_deadline: float = 5.0
    """How long a publish or cast may wait for durability."""
    slots: int = 64
    """Handlers of one source running at once in this process."""
    threads_max: int = 32
    """Plain ``def`` handlers running at once in this process."""
    lease: float = 60.0
    """A message whose worker shows no life for so long is given to another; renewed at a third."""
    kill_switch_wait: float = 30.0
    watchdog: float = 30.0
    drain: float = 25.0
    body_max_bytes: int = 1_048_576
    """Of a message and, over HTTP, of a request and an answer: what is larger is refused."""
    inbox_retention: float = INBOX_RETENTION_LEAST
    """How long handled ids are kept: a redrive of what is older is not known to be a repeat."""
    outbox_retention: float = 72 * 3_600.0
    database: str = ""
    """Where transactions go of a service that declares no database: a URL, ``{service}`` in it."""

    def __post_init__(self) -> None:
        if self.inbox_retention < INBOX_RETENTION_LEAST:
            raise Misuse(
                f"Settings(inbox_retention={self.inbox_retention!r}): seven days"
                f" ({INBOX_RETENTION_LEAST:.0f} s) is the least, or a redrive would run twice"
            )


class Table(Struct, forbid_unknown_fields=True, rename="kebab"):
    """What ``[tool.callcast]``, ``callcast.toml`` and ``CALLCAST_*`` may say."""

    broker: str | None = None
    database: str | None = None
    name: str | None = None
    peers: dict[str, str] = {}
    publish_deadline: float | None = None
    slots: int | None = None
    threads_max: int | None = None
    lease: float | None = None
    kill_switch_wait: float | None = None
    watchdog: float | None = None
    drain: float | None = None
    body_max_bytes: int | None = None
    immediate: int | None = None
    delays: str | None = None
    """Comma-separated seconds, such as ``10,30,120,600``."""
    attempts: int | None = None
    attempt_timeout: float | None = None
    breaker_wait: float | None = None
    breaker_window: int | None = None
    breaker_minimum: int | None = None
    bulkhead: int | None = None
    traces: str | None = None
    """Where spans are sent: ``otlp://HOST:4318``, ``zipkin://HOST:9411`` or ``off``."""
    record: str | None = None
    """Where the local record is kept: a path, ``on`` or ``off``."""
    record_spans: str | None = None
    """``all`` keeps every span; else some of each second."""


_PLAIN = (
    "database",
    "publish_deadline",
    "slots",
    "threads_max",
    "lease",
    "kill_switch_wait",
    "watchdog",
    "drain",
    "body_max_bytes",
)


def read_table(folder: Path, environ: Mapping[str, str] = os.environ) -> Table:
    """Files first (`pyproject.toml`, then `callcast.toml`), the environment over them.

    Raises `Misuse` for a value that is not of its kind, naming where it stands, and for a variable
    that is nearly a setting; other ``CALLCAST_*`` variables are the program's own.
    """
    raw: dict[str, object] = {}
    for name in ("pyproject.toml", "callcast.toml"):
        raw |= _file(folder / name)
    known = {name.upper(): name.replace("_", "-") for name in Table.__struct_fields__}
    peers: dict[str, object] = {}
    for name, value in environ.items():
        if name.startswith(PEER_PREFIX):
            peers[name[len(PEER_PREFIX) :].lower().replace("_", "-")] = value
        elif name.startswith(PREFIX) and (key := known.get(name[len(PREFIX) :])):
            raw[key] = value
        elif name.startswith(PREFIX):
            _refuse_misspelt(name.removeprefix(PREFIX), list(known))
    if peers:
        raw["peers"] = {**cast("Mapping[str, object]", raw.get("peers", {})), **peers}
    try:
        return msgspec.convert(raw, Table, strict=False)
    except msgspec.ValidationError as error:
        raise Misuse(
            f"a setting of callcast is wrong: {error} (looked in {folder / 'pyproject.toml'}"
            f" [tool.callcast], {folder / 'callcast.toml'} and {PREFIX}* variables)"
        ) from error


def _refuse_misspelt(name: str, known: Sequence[str]) -> None:
    """A setting that is silently not set would be found out at night."""
    meant = difflib.get_close_matches(name, known, n=1, cutoff=MISSPELT)
    if meant:
        raise Misuse(f"{PREFIX}{name} is no setting: did you mean {PREFIX}{meant[0]}?")


def _file(path: Path) -> Mapping[str, object]:
    if not path.is_file():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misuse(f"{path} is not TOML: {error}") from error
    if path.name == "pyproject.toml":
        content = content.get("tool", {}).get("callcast", {})
    return content


def settings_of(table: Table) -> Settings:
    """The defaults with everything that the table says; raises `Misuse` for bad delays."""
    settings = Settings()
    said = {name: getattr(table, name) for name in _PLAIN if getattr(table, name) is not None}
    recovery = settings.recovery
    if table.immediate is not None:
        recovery = replace(recovery, immediate=table.immediate)
    if table.delays is not None:
        recovery = replace(recovery, delays=_delays(table.delays))
    return replace(settings, recovery=recovery, policy=_policy(settings.policy, table), **said)


def _delays(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise Misuse(
            f"delays={text!r}: write seconds separated by commas, such as 10,30,120,600"
        ) from error


def _policy(policy: Policy, table: Table) -> Policy:
    retry = policy.retry or Retry()
    if table.attempts is not None:
        retry = replace(retry, attempts=table.attempts)
    breaker = policy.breaker or CircuitBreaker()
    # In one step: a window shorter than its minimum is refused.
    breaker = replace(
        breaker,
        wait=_given(table.breaker_wait, breaker.wait),
        window=_given(table.breaker_window, breaker.window),
        minimum=_given(table.breaker_minimum, breaker.minimum),
    )
    bulkhead = policy.bulkhead if table.bulkhead is None else Bulkhead(table.bulkhead)
    timeout = policy.attempt_timeout if table.attempt_timeout is None else table.attempt_timeout
    return replace(policy, retry=retry, breaker=breaker, bulkhead=bulkhead, attempt_timeout=timeout)


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def program_name() -> str:
    """What a bus is called that has no service to be named after: the program's file.

    For ``python -m package`` it is the package, without a file it is ``python``.
    """
    path = Path(sys.argv[0])
    name = path.parent.name if path.stem == "__main__" else path.stem
    return "python" if name in {"", "-", "-c", "-m"} else name
