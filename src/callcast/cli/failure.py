"""How a command fails: what happened, why, and what to do next, on stderr; and an exit code.

| code | means                                                     |
|------|-----------------------------------------------------------|
| 0    | done                                                      |
| 1    | findings: `doctor` found something, `demo`'s account is off |
| 2    | usage or configuration                                    |
| 3    | the broker cannot be reached: host, port, TLS, vhost       |
| 4    | not permitted: user, password, permission, file mode      |
| 5    | a bulk action succeeded in part                           |
| 124  | a deadline passed                                         |
| 130  | interrupted                                               |
"""

from __future__ import annotations

import errno
from typing import IO, Any

import click

from callcast.core.errors import CallcastError, Misuse, NotPermitted, Unpublished
from callcast.telemetry.logs import without_passwords

FINDINGS = 1
DOCTOR = "callcast doctor"
CAUSES_MAX = 8
"""Causes of an error that are looked at."""


class Failure(click.ClickException):
    """A sentence on what failed and why, and the next command to try: usage or configuration."""

    exit_code = 2

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(what)
        self.fix = fix

    def show(self, file: IO[Any] | None = None) -> None:
        """Write it to stderr."""
        click.echo(f"error: {self.format_message()}", file=file, err=True)
        if self.fix:
            click.echo(f"  try: {self.fix}", file=file, err=True)


class Unreachable(Failure):
    """The broker cannot be reached."""

    exit_code = 3


class Forbidden(Failure):
    """A permission is missing."""

    exit_code = 4


class Partial(Failure):
    """A bulk action succeeded in part."""

    exit_code = 5


class TooLate(Failure):
    """A deadline passed."""

    exit_code = 124


class Interrupted(Failure):
    """Ctrl-C or SIGTERM: said in one word."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("interrupted")


def failure_of(error: Exception) -> Failure | None:
    """An error as a person reads it; None for one that nobody foresaw: it keeps its traceback."""
    if isinstance(error, CallcastError):
        return _of_ours(error)
    if isinstance(error, PermissionError):
        return Forbidden(_of_system(error), fix="ls -ld, then chmod or chown")
    if isinstance(error, TimeoutError):
        return TooLate(str(error) or "the deadline passed")
    if isinstance(error, OSError):
        return Failure(_of_system(error), fix=_FIXES.get(error.errno or 0, ""))
    return None


def _of_ours(error: CallcastError) -> Failure:
    refusal = refusal_of(error)
    if refusal is not None:
        return Forbidden(without_passwords(str(refusal)), fix=DOCTOR)
    if isinstance(error, Misuse):
        return Failure(without_passwords(str(error)))
    return Unreachable(without_passwords(str(error)), fix=DOCTOR)


def refusal_of(error: BaseException) -> NotPermitted | None:
    """What a server refused, though the error may be about what came of it: its causes tell."""
    seen: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if seen is None or isinstance(seen, NotPermitted):
            break
        failed = [one for one in seen.errors if one] if isinstance(seen, Unpublished) else []
        seen = failed[0] if failed else seen.__cause__
    return seen if isinstance(seen, NotPermitted) else None


_FIXES = {
    errno.ENOSPC: "df -h, then free some space",
    errno.EDQUOT: "quota, then free some space",
    errno.EROFS: "name a file on a file system that can be written",
    errno.EADDRINUSE: "another --port, or --port 0 for any free one",
}


def _of_system(error: OSError) -> str:
    """``cannot use /var/x.db: No space left on device``."""
    reason = error.strerror or str(error)
    return f"cannot use {error.filename}: {reason}" if error.filename else reason
