"""The classifier: what an error says about the one who was asked."""

import asyncio

import pytest

from callcast.core.errors import (
    BulkheadFull,
    CircuitOpen,
    Duplicate,
    Expired,
    Misuse,
    NotSent,
    Refused,
    Remote,
    Unanswered,
    Unavailable,
    Undecodable,
)
from callcast.policies.classify import Verdict, verdict_of

FAILED, OK, IGNORED = Verdict.FAILED, Verdict.OK, Verdict.IGNORED


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (Remote("x", status=500), FAILED),
        (Remote("x", status=503), FAILED),
        (Remote("x", status=599), FAILED),
        (Remote("x", status=429), FAILED),
        (Remote("x", status=503, do_not_retry=True), FAILED),
        (Remote("x", status=404), OK),
        (Remote("x", status=400), OK),
        (Remote("x", status=409), OK),
        (Refused("no such sku"), OK),
        (NotSent("no connection"), FAILED),
        (Unanswered("no answer"), FAILED),
        (Unavailable("database away"), FAILED),
        (Undecodable("garbage"), FAILED),
        (ConnectionResetError(), FAILED),
        (TimeoutError(), FAILED),
        (ValueError("a fault of the function"), FAILED),
        (CircuitOpen("open", retry_after=1.0), IGNORED),
        (BulkheadFull("full"), IGNORED),
        (Expired("late"), IGNORED),
        (Misuse("wrong program"), IGNORED),
        (asyncio.CancelledError(), IGNORED),
        (Duplicate(), IGNORED),
        (KeyboardInterrupt(), IGNORED),
        (SystemExit(), IGNORED),
        (GeneratorExit(), IGNORED),
    ],
)
def test_an_error_says_what_the_callee_is_worth(error: BaseException, verdict: Verdict) -> None:
    assert verdict_of(error) is verdict
