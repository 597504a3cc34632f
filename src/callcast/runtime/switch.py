"""The kill switch in the worker's hands: asked before a fetch, told of verdicts, telling facts."""

from __future__ import annotations

from callcast.core.outcome import Dead, Later, Outcome, Release
from callcast.policies import kill_switch
from callcast.policies.classify import OK, UNAVAILABLE
from callcast.ports.broker import Source
from callcast.ports.observer import KillSwitch as Switched
from callcast.runtime.ports import Ports
from callcast.runtime.subscription import WorkerSettings


class Switch:
    """One source's kill switch; outlives a consumer that is built anew."""

    def __init__(self, source: Source, settings: WorkerSettings, ports: Ports) -> None:
        self._source = str(source)
        self._observer = ports.observer
        self._switch = kill_switch.KillSwitch(
            rate=settings.kill_switch_rate,
            minimum=settings.kill_switch_minimum,
            window=settings.kill_switch_window,
            wait=settings.kill_switch_wait,
        )
        self._told = "closed"

    @property
    def is_closed(self) -> bool:
        """Whether all may be fetched and run."""
        return self._told == "closed"

    @property
    def is_open(self) -> bool:
        """Whether nothing may run."""
        return self._told == "open"

    def admits(self, now: float, *, is_quiet: bool) -> int:
        """How many may be fetched while it is not closed: the trial, or nothing.

        `is_quiet`: nothing is in flight, so that the next verdict will be the trial's.
        """
        if not is_quiet:
            return 0
        admitted = self._switch.admits(now) or 0
        self._tell("the wait is over")
        return admitted

    def retry_in(self, now: float) -> float:
        """Seconds until the trial is due."""
        return self._switch.retry_in(now)

    def done(self, now: float) -> None:
        """A message was handled."""
        self._switch.record(OK, now)
        if self._told != "closed":
            self._tell("the trial was handled")

    def judge(self, outcome: Later | Dead | Release, now: float) -> Outcome:
        """Take in any other outcome; what becomes of the message."""
        verdict = self._switch.judge(outcome, now)
        self._tell(outcome.reason)
        return verdict

    def unavailable(self, why: str, now: float) -> None:
        """The broker is away."""
        self._switch.record(UNAVAILABLE, now)
        self._tell(why)

    def _tell(self, reason: str) -> None:
        state = self._switch.state
        if state != self._told:
            self._told = state
            self._observer.tell(Switched(self._source, state, reason))
