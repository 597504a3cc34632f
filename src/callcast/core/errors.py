"""One root of errors; each says whether it was done and whether it is sane to repeat.

| error        | was it done?                    | repeat?                                        |
|--------------|---------------------------------|------------------------------------------------|
| `Misuse`     | no: the program is wrong        | never; mend the program                        |
| `NotSent`    | no: nothing left this process   | always safe                                    |
| `Unanswered` | perhaps                         | only what is idempotent, with the same id      |
| `Remote`     | they answered with an error     | as `Remote.retryable` says                     |
| `Refused`    | a handler's own "no", for good  | never; the caller sees it as `Remote`          |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct


class Attempt(Struct, frozen=True):
    """One try of a call: how it ended and how long it took (seconds)."""

    number: int
    error: str
    took: float


class CallcastError(Exception):
    """The root of all errors that callcast raises on purpose."""

    attempts: tuple[Attempt, ...] = ()
    """What was tried before this error surfaced, oldest first; filled by `Retry`."""


class Misuse(CallcastError):
    """The program is wrong: a contract, a handler or a setting. Raised as early as can be."""


class NotSent(CallcastError):
    """Nothing happened and nothing will: repeating is safe."""

    def __init__(self, detail: str, *, id: str | None = None) -> None:
        super().__init__(detail)
        self.id = id
        """The id of the message or call, when it has one: send it again under the same id."""


class Unanswered(CallcastError):
    """It may have happened: no answer came. Repeat only what is idempotent, under the same id."""

    def __init__(self, detail: str, *, id: str | None = None) -> None:
        super().__init__(detail)
        self.id = id
        """The id of the message or call, when it has one: send it again under the same id."""


class CommitUnknown(Unanswered):
    """COMMIT was sent and its reply was lost: the transaction took effect wholly or not at all."""


class CircuitOpen(NotSent):
    """The breaker of this callee is open: it was not contacted."""

    def __init__(self, detail: str, *, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        """Seconds until the breaker admits a trial."""


class BulkheadFull(NotSent):
    """As many calls as allowed are under way already: this one was not sent."""


class Expired(NotSent):
    """The deadline had passed (or less than 1 ms was left) before anything was sent."""


class Remote(CallcastError):
    """The callee answered with an error (RFC 9457 problem details over HTTP)."""

    def __init__(  # noqa: PLR0913 - the members of a problem detail
        self,
        detail: str,
        *,
        status: int = 500,
        type: str = "about:blank",
        title: str = "",
        data: Mapping[str, object] | None = None,
        retry_after: float | None = None,
        do_not_retry: bool = False,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.type = type
        self.title = title
        self.data: Mapping[str, object] = data or {}
        """Extension members of the problem, as sent."""
        self.retry_after = retry_after
        """Seconds the callee asks to wait, or None."""
        self.do_not_retry = do_not_retry
        """The callee is itself being retried, or overloaded: a retry from here would multiply."""

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later: 5xx and 429, unless the callee forbids it."""
        return not self.do_not_retry and (self.status >= 500 or self.status == 429)


class Refused(CallcastError):
    """A handler's "no", for good: its caller gets `Remote`, its cast goes to the dead letters.

    `status` is the HTTP status the caller sees (4xx); `data` becomes extension members.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int = 409,
        type: str = "about:blank",
        data: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.type = type
        self.data: Mapping[str, object] = data or {}


class Undecodable(CallcastError):
    """Bytes that are not what the contract says; `field` names where (``$.items[3].sku``)."""

    def __init__(self, detail: str, *, field: str = "$") -> None:
        super().__init__(detail)
        self.field = field


class WrongRequest(Undecodable):
    """A call's request that is not what the contract says: the caller's fault, not the handler's.

    Raised before the handler runs; an `Undecodable` of its own says nothing about the request.
    """


class Unpublished(CallcastError):
    """Some messages of a batch were not published; the others are durable."""

    def __init__(self, errors: Sequence[NotSent | Unanswered | None]) -> None:
        failed = [error for error in errors if error is not None]
        super().__init__(f"{len(failed)} of {len(errors)} messages were not published: {failed[0]}")
        self.errors: tuple[NotSent | Unanswered | None, ...] = tuple(errors)
        """One entry per message of the batch, in its order; None where it was published.

        A `NotSent` with a cause is the broker's failure; one without is about that message alone,
        and sending it again would be refused again.
        """


class Busy(CallcastError):
    """Somebody else holds the lock (SQLite's busy, 55P03, 40P01): try again shortly, uncounted."""


class Unavailable(CallcastError):
    """A database or broker is away: work waits, nothing is counted against it."""


class NotPermitted(Unavailable):
    """A broker or database is there and refuses us: user, password or a permission.

    The sentence says where, as whom (never with which password), what was refused and what to do.
    An `Unavailable`: credentials are renewed and permissions granted while programs run, so a
    worker waits and tries again; a command ends with exit code 4.
    """


class Duplicate(BaseException):
    """This message's effect is already committed (a twin was faster): leave the handler at once.

    A BaseException, so that a handler's ``except Exception`` cannot swallow it.
    """
