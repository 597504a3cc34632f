"""The kill switch of a source: when most handling fails, stop fetching instead of burning attempts.

| state  | admits            | FAILED                | UNAVAILABLE | OK     | IGNORED |
|--------|-------------------|-----------------------|-------------|--------|---------|
| closed | None: freely      | open at the rate      | open        | counts | -       |
| open   | 0 until the wait, | -                     | -           | -      | -       |
|        | then trial        |                       |             |        |         |
| trial  | 1                 | open                  | open        | closed | -       |

The worker asks before it fetches. It fetches the trial only when nothing else is in flight, and
as long as no verdict came back `admits` says 1 again: another message is the trial then.

What a message's own outcome becomes (an outage must not wear out what waits for its end):

| state when judged      | Later, Dead for want of attempts | any other |
|------------------------|----------------------------------|-----------|
| closed                 | as it is, also what opens it     | as it is  |
| open: was in flight    | Release, not counted             | as it is  |
| trial                  | Release, not counted             | as it is  |
"""

from __future__ import annotations

from callcast.core.errors import Undecodable
from callcast.core.outcome import Dead, Done, Later, Outcome, Release
from callcast.policies.classify import FAILED, IGNORED, OK, UNAVAILABLE, Verdict
from callcast.policies.recovery import AWAY
from callcast.policies.window import TimeWindow

__all__ = ["KillSwitch", "Verdict", "verdict_on"]


def verdict_on(outcome: Outcome) -> Verdict:
    """What one outcome says about handling as a whole."""
    if isinstance(outcome, Done):
        return OK
    if isinstance(outcome, Later):
        return FAILED
    if isinstance(outcome, Dead):
        # Without a cause it is expired or poison. Bad bytes are the sender's fault.
        cause = outcome.cause
        is_handling = cause is not None and not isinstance(cause, Undecodable)
        return FAILED if is_handling else IGNORED
    return UNAVAILABLE if outcome.reason.startswith(AWAY) else IGNORED


class KillSwitch:
    """Told the time and the verdicts of one source; see the table of this module.

    Opens when `rate` of at least `minimum` verdicts within `window` seconds are failures, or at
    once when a database is away; after `wait` seconds one message is the trial. Not locked: one
    worker owns it.
    """

    def __init__(
        self, *, rate: float = 0.5, minimum: int = 20, window: int = 60, wait: float = 30.0
    ) -> None:
        self._rate = rate
        self._minimum = minimum
        self._wait = wait
        self._window = TimeWindow(window)
        self._opened = 0.0
        self.state: str = "closed"

    def admits(self, now: float) -> int | None:
        """How many may be fetched: None is as many as you like, 0 none, 1 the trial."""
        if self.state == "closed":
            return None
        if self.state == "open":
            if now < self._opened + self._wait:
                return 0
            self.state = "trial"
        return 1

    def record(self, verdict: Verdict, now: float) -> None:
        """Take in the verdict on one message."""
        if verdict is IGNORED or self.state == "open":
            return
        if verdict is UNAVAILABLE:
            self._open(now)
        elif self.state == "trial":
            if verdict is OK:
                self.state = "closed"
            else:
                self._open(now)
        else:
            window = self._window
            window.add(now, failed=verdict is FAILED, slow=False)
            if window.calls >= self._minimum and window.failures >= window.calls * self._rate:
                self._open(now)

    def judge(self, outcome: Outcome, now: float) -> Outcome:
        """Take in what handling came to; what becomes of the message.

        Unless it is closed, what may pass is not counted and what is for good stays. It rests for
        two waits, so that the next trial takes another message where order allows.
        """
        is_counted = self.state == "closed"
        self.record(verdict_on(outcome), now)
        if is_counted or not (isinstance(outcome, (Later, Dead)) and _may_pass(outcome)):
            return outcome
        return Release(2 * self._wait, outcome.reason)

    def retry_in(self, now: float) -> float:
        """Seconds until the trial; 0 when it is due or none is needed."""
        return max(0.0, self._opened + self._wait - now) if self.state == "open" else 0.0

    def _open(self, now: float) -> None:
        self.state = "open"
        self._opened = now
        self._window.clear()


def _may_pass(outcome: Later | Dead) -> bool:
    return isinstance(outcome, Later) or outcome.exhausted
