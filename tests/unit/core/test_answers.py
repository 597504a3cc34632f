"""Which status answers what: said once, sent by the server and seen in its telemetry."""

from __future__ import annotations

import pytest

from callcast.core.answer import RAISED, answered
from callcast.core.errors import (
    Busy,
    CircuitOpen,
    CommitUnknown,
    Expired,
    NotSent,
    Refused,
    Remote,
    Unanswered,
    Unavailable,
    Undecodable,
    WrongRequest,
)
from callcast.transports.problem import problem_of

ERRORS = [
    (Refused("sold out", status=410), 410),
    (Expired("late"), 504),
    (NotSent("no connection"), 503),
    (CircuitOpen("open", retry_after=1.0), 503),
    (Unanswered("gone"), 504),
    (CommitUnknown("gone"), 503),
    (Unavailable("away"), 503),
    (Busy("locked"), 503),
    (Remote("theirs", status=404), 502),
    (WrongRequest("not a number", field="$.n"), 400),
]


@pytest.mark.parametrize(("error", "status"), ERRORS)
def test_an_error_has_one_status_for_callers_and_for_telemetry(
    error: Exception, status: int
) -> None:
    problem = problem_of(error)
    assert problem is not None
    assert (problem.status, answered(error, is_void=False)) == (status, status)


@pytest.mark.parametrize("error", [ZeroDivisionError(), Undecodable("a file of its own")])
def test_what_is_nobodys_business_is_500(error: Exception) -> None:
    assert problem_of(error) is None
    assert answered(error, is_void=True) == 500


def test_a_result_is_200_and_none_204() -> None:
    assert answered(None, is_void=False) == 200
    assert answered(None, is_void=True) == 204


def test_no_row_hides_a_later_one() -> None:
    kinds = list(RAISED)
    for at, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:at])
