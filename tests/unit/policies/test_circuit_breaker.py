"""The circuit breaker: windows, trials and generations, told the time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from policies_kit import lock

from callcast.core.errors import Misuse
from callcast.policies.breaker import Breaker, Circuit, Phase
from callcast.policies.options import CircuitBreaker


def a_breaker(**options: object) -> Breaker:
    return Breaker(CircuitBreaker(**options), lock=lock())  # type: ignore[arg-type]


def run(breaker: Breaker, outcomes: str, now: float = 0.0) -> None:
    """S success, F failure, L slow success, X slow failure: admitted and recorded one by one."""
    for outcome in outcomes:
        token = breaker.admit(now)
        assert token is not None, f"rejected before {outcome} of {outcomes}"
        breaker.record(token, now, failed=outcome in "FX", slow=outcome in "LX")


def opened(now: float = 0.0, **options: object) -> Breaker:
    breaker = a_breaker(**options)
    run(breaker, "F" * 5, now)
    assert breaker.state is Circuit.OPEN
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("F" * 4, Circuit.CLOSED),
        ("F" * 5, Circuit.OPEN),
        ("FFFFS" * 3, Circuit.CLOSED),  # 15 seen: the rate is unknown, and never 5 in a row
        ("SF" * 9 + "S", Circuit.CLOSED),  # 19 seen: unknown
        ("SF" * 10, Circuit.OPEN),  # the 20th: 10 of 20
        ("FS" * 10, Circuit.OPEN),  # the 20th is a success, and decides
        ("S" * 11 + "FFFFSFFFF", Circuit.CLOSED),  # 8 of 20
        ("S" * 100 + "F" * 49, Circuit.CLOSED),  # in a row counts only while little is known
        ("S" * 100 + "F" * 50, Circuit.OPEN),  # half of the last hundred
        ("L" * 19, Circuit.CLOSED),
        ("L" * 20, Circuit.OPEN),  # all were slow
        ("L" * 19 + "S" + "L" * 80, Circuit.CLOSED),  # one was not
    ],
)
def test_a_circuit_opens_at_its_limits(outcomes: str, state: Circuit) -> None:
    breaker = a_breaker()
    run(breaker, outcomes)
    assert breaker.state is state


def test_an_own_number_of_failures_in_a_row_holds_whatever_is_known() -> None:
    breaker = a_breaker(consecutive=3)
    run(breaker, "S" * 100 + "FF")
    assert breaker.state is Circuit.CLOSED
    run(breaker, "F")
    assert breaker.state is Circuit.OPEN
    assert [change.reason for change in breaker.changes] == ["3 calls failed in a row"]


def test_a_share_is_not_missed_by_rounding() -> None:
    breaker = a_breaker(rate=0.07, minimum=100, window=100, consecutive=100)
    run(breaker, "S" * 93 + "F" * 7)
    assert breaker.state is Circuit.OPEN


def test_failures_leave_a_window_of_time() -> None:
    breaker = a_breaker(window_time=10)
    run(breaker, "SF" * 9 + "S", now=0.0)
    run(breaker, "SF" * 9 + "S", now=11.0)
    assert breaker.state is Circuit.CLOSED
    run(breaker, "F", now=12.0)
    assert breaker.state is Circuit.OPEN


def test_an_open_circuit_admits_nothing_until_its_wait_has_passed() -> None:
    breaker = opened(now=100.0)
    assert breaker.admit(100.0) is None
    assert breaker.retry_in(110.0) == 20.0
    assert breaker.admit(130.0) is None  # strictly after
    assert breaker.state is Circuit.OPEN
    assert breaker.admit(130.001) is not None
    assert breaker.state is Circuit.HALF_OPEN


@pytest.mark.parametrize("permitted", [1, 3, 7])
def test_fifty_callers_in_half_open_are_the_permitted_number(permitted: int) -> None:
    breaker = opened(permitted=permitted)
    tokens = [breaker.admit(31.0) for _ in range(50)]
    assert sum(token is not None for token in tokens) == permitted


def test_fifty_threads_in_half_open_are_the_permitted_number() -> None:
    for _ in range(20):
        breaker = opened()
        start = threading.Barrier(50)

        def ask(breaker: Breaker = breaker, start: threading.Barrier = start) -> Phase | None:
            start.wait()
            return breaker.admit(31.0)

        with ThreadPoolExecutor(50) as pool:
            tokens = [each.result() for each in [pool.submit(ask) for _ in range(50)]]
        assert sum(token is not None for token in tokens) == 3


def test_outcomes_of_many_threads_are_all_counted() -> None:
    breaker = a_breaker(window=10_000, minimum=10_000, consecutive=10_000, rate=1.0)

    def work() -> None:
        for _ in range(500):
            token = breaker.admit(0.0)
            assert token is not None
            breaker.record(token, 0.0, failed=True, slow=False)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert breaker._window.failures == 4_000


@pytest.mark.parametrize(
    ("trials", "state"),
    [
        ("SSS", Circuit.CLOSED),
        ("SSF", Circuit.CLOSED),  # 1 of 3 is below one half
        ("SFF", Circuit.OPEN),
        ("LLL", Circuit.OPEN),
        ("LLS", Circuit.CLOSED),
    ],
)
def test_the_trials_decide(trials: str, state: Circuit) -> None:
    breaker = opened()
    run(breaker, trials, now=31.0)
    assert breaker.state is state


def test_a_closed_circuit_has_forgotten_what_opened_it() -> None:
    breaker = opened()
    run(breaker, "SSS", now=31.0)
    run(breaker, "FFFF", now=32.0)
    assert breaker.state is Circuit.CLOSED


def test_each_failed_trial_doubles_the_wait_up_to_its_limit_and_closing_resets_it() -> None:
    breaker = opened(permitted=1)
    now, waits = 0.0, []
    for _ in range(6):
        waits.append(breaker.retry_in(now))
        now += waits[-1] + 0.001
        run(breaker, "F", now)
    assert waits == pytest.approx([30.0, 60.0, 120.0, 240.0, 300.0, 300.0])
    now += 301.0
    run(breaker, "S", now)
    assert breaker.state is Circuit.CLOSED
    run(breaker, "F" * 5, now)
    assert breaker.retry_in(now) == pytest.approx(30.0)


def test_a_result_of_another_generation_is_ignored() -> None:
    breaker = a_breaker()
    late = breaker.admit(0.0)
    assert late is not None
    run(breaker, "F" * 5)
    breaker.record(late, 1.0, failed=False, slow=False)
    assert breaker.state is Circuit.OPEN
    first = breaker.admit(31.0)
    assert first is not None
    breaker.record(late, 31.0, failed=True, slow=False)
    breaker.forget(late)
    assert breaker.state is Circuit.HALF_OPEN
    assert [breaker.admit(31.0) is None for _ in range(3)] == [False, False, True]
    breaker.record(first, 31.0, failed=False, slow=False)
    breaker.reset()
    breaker.record(first, 32.0, failed=True, slow=False)
    assert breaker._window.calls == 0


def test_a_cancelled_trial_makes_the_next_call_the_trial() -> None:
    breaker = opened(permitted=1)
    token = breaker.admit(31.0)
    assert token is not None
    assert breaker.admit(31.0) is None
    breaker.forget(token)
    assert breaker.retry_in(31.0) == 0.0
    assert breaker.admit(31.0) is token
    breaker.record(token, 31.0, failed=False, slow=False)
    assert breaker.state is Circuit.CLOSED


def test_forgetting_in_a_closed_circuit_changes_nothing() -> None:
    breaker = a_breaker()
    token = breaker.admit(0.0)
    assert token is not None
    breaker.forget(token)
    assert token.permits == 0


def test_a_trial_that_never_returns_counts_as_failed_when_its_phase_ends() -> None:
    breaker = opened(permitted=1)
    assert breaker.admit(31.0) is not None
    assert breaker.retry_in(31.0) == 30.0
    assert breaker.admit(61.0) is None
    assert breaker.state is Circuit.HALF_OPEN
    assert breaker.admit(61.1) is None
    assert breaker.state is Circuit.OPEN
    assert breaker.retry_in(61.1) == pytest.approx(60.0)
    assert breaker.admit(121.2) is not None


def test_a_phase_that_ends_decides_on_what_it_has() -> None:
    breaker = opened()
    run(breaker, "S", now=31.0)
    assert breaker.admit(31.0) is not None  # never returns, beside one that passed
    token = breaker.admit(62.0)
    assert token is None
    assert breaker.state is Circuit.OPEN
    again = opened()
    run(again, "S", now=31.0)  # little traffic: one trial came, and passed
    assert again.admit(62.0) is not None
    assert again.state is Circuit.CLOSED


def test_a_phase_without_any_result_starts_anew() -> None:
    breaker = opened(permitted=1, half_open_max=5.0)
    token = breaker.admit(31.0)
    assert token is not None
    breaker.forget(token)
    again = breaker.admit(36.1)
    assert again is not None
    assert again is not token
    assert breaker.state is Circuit.HALF_OPEN
    assert [change.after for change in breaker.changes] == [Circuit.OPEN, Circuit.HALF_OPEN]


def test_an_operator_opens_disables_measures_and_resets() -> None:
    breaker = a_breaker()
    breaker.force_open()
    assert breaker.admit(1e9) is None
    assert breaker.retry_in(0.0) == 30.0
    breaker.disable()
    run(breaker, "F" * 200)
    assert breaker.state is Circuit.DISABLED
    assert breaker._window.calls == 0
    breaker.only_measure()
    run(breaker, "F" * 200)
    assert breaker.state is Circuit.METRICS_ONLY
    assert breaker._window.failures == 100
    breaker.reset()
    assert breaker.state is Circuit.CLOSED
    run(breaker, "F" * 5)
    assert [change.after for change in breaker.changes] == [
        Circuit.FORCED_OPEN,
        Circuit.DISABLED,
        Circuit.METRICS_ONLY,
        Circuit.CLOSED,
        Circuit.OPEN,
    ]


def test_each_change_is_handed_out_once() -> None:
    breaker = opened()
    assert [change.after for change in breaker.take_changes()] == [Circuit.OPEN]
    assert breaker.take_changes() == ()


def test_every_change_says_why() -> None:
    breaker = opened(permitted=2)
    run(breaker, "SF", now=31.0)
    run(breaker, "SS", now=92.0)
    assert [(change.before, change.after, change.reason) for change in breaker.changes] == [
        ("closed", "open", "5 calls failed in a row"),
        ("open", "half_open", "its wait is over"),
        ("half_open", "open", "in the trial 1 of 2 calls failed"),
        ("open", "half_open", "its wait is over"),
        ("half_open", "closed", "2 of 2 trials passed"),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0},
        {"minimum": 0},
        {"permitted": 0},
        {"consecutive": 0},
        {"window_time": 0},
        {"rate": 0.0},
        {"rate": 1.5},
        {"slow_rate": 0.0},
        {"wait": 0.0},
        {"wait": 301.0},
        {"slow_call": 0.0},
        {"half_open_max": -1.0},
        {"minimum": 200},
    ],
)
def test_numbers_out_of_range_are_misuse(wrong: dict[str, float]) -> None:
    with pytest.raises(Misuse, match=r"CircuitBreaker\("):
        CircuitBreaker(**wrong)  # type: ignore[arg-type]


class AnyOrder(RuleBasedStateMachine):
    """Admissions and results in any order: trials stay bounded, and nothing wedges the circuit."""

    PERMITTED = 3

    def __init__(self) -> None:
        super().__init__()
        self.breaker = a_breaker(window=6, minimum=4, wait=10.0, wait_max=40.0)
        self.now = 0.0
        self.out: list[Phase] = []

    @rule(pause=st.floats(0.0, 40.0))
    def ask(self, pause: float) -> None:
        self.now += pause
        before = self.breaker.state
        token = self.breaker.admit(self.now)
        if token is None:
            assert before is not Circuit.CLOSED
            assert self.breaker.state in {Circuit.OPEN, Circuit.HALF_OPEN}
        else:
            assert self.breaker.state is not Circuit.OPEN
            self.out.append(token)

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 9), failed=st.booleans(), slow=st.booleans())
    def answer(self, which: int, *, failed: bool, slow: bool) -> None:
        token = self.out.pop(which % len(self.out))
        self.breaker.record(token, self.now, failed=failed, slow=slow)

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 9))
    def cancel(self, which: int) -> None:
        self.breaker.forget(self.out.pop(which % len(self.out)))

    @invariant()
    def trials_are_bounded(self) -> None:
        phase = self.breaker._phase
        if phase.state is Circuit.HALF_OPEN:
            trials = sum(token is phase for token in self.out)
            assert trials + phase.calls + phase.permits == self.PERMITTED
            assert phase.calls < self.PERMITTED

    def teardown(self) -> None:
        for _ in range(10):  # however it stands, a healthy callee closes it
            self.now += 41.0
            for _ in range(self.PERMITTED):
                token = self.breaker.admit(self.now)
                if token is not None:
                    self.breaker.record(token, self.now, failed=False, slow=False)
        assert self.breaker.state is Circuit.CLOSED


TestWhateverHappensTheCircuitRecovers = AnyOrder.TestCase
