"""What the adviser says about one interaction."""

from __future__ import annotations

from msgspec import Struct

from callcast.advise.confidence import Interval
from callcast.advise.model import Edge, Verb, Verdict

ASSUMPTIONS = (
    (
        "failures are taken to be independent, which is optimistic: an outage of a zone or a bad"
        " release takes several services at once"
    ),
    "traffic is taken to be steady over the window that was seen",
)
"""Behind every number; the window and the sample are said with each."""


class Numbers(Struct, frozen=True):
    """How a caller's answer stands, or would stand."""

    availability: float
    p95: float
    """Seconds."""
    waits_for: int
    """Services that have to be up for the answer."""


class Advice(Struct, frozen=True, kw_only=True):
    """A verdict, with why, how sure, what it brings, what it costs and what to type."""

    edge: Edge
    verb: Verb
    """How it is made today."""
    verdict: Verdict
    rules: tuple[str, ...] = ()
    reason: str = ""
    """Why, in a sentence with its numbers."""
    interval: Interval | None = None
    """Of the availability that was seen, where one was needed."""
    before: Numbers | None = None
    after: Numbers | None = None
    duties: tuple[str, ...] = ()
    """What comes with it and was not there before."""
    change: str = ""
    """The line to write."""
    conditions: tuple[str, ...] = ()
    """What must be so first."""
    questions: tuple[str, ...] = ()
    """What is not known and would decide."""

    @property
    def is_change(self) -> bool:
        """Whether it is to be made otherwise than today."""
        return self.verdict is not Verdict.UNDECIDED and self.verdict.value != STAYS[self.verb]


STAYS = {
    Verb.CALL: Verdict.CALL.value,
    Verb.CAST: Verdict.CAST.value,
    Verb.PUBLISH: Verdict.PUBLISH.value,
    Verb.REQUEST: Verdict.CAST.value,
}
"""The verdict that leaves an interaction as it is."""
