"""Errors to problem details and back."""

from __future__ import annotations

import json

import pytest

from callcast.core.errors import (
    BulkheadFull,
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
from callcast.transports.problem import (
    CONTENT_TYPE,
    Problem,
    bounded_text,
    problem_of,
    read_problem,
    title_of,
    unexpected,
    with_correlation,
)


@pytest.mark.parametrize(
    ("error", "status", "do_not_retry"),
    [
        (Refused("sold out"), 409, False),
        (Refused("gone", status=410), 410, False),
        (Expired("late"), 504, True),
        (NotSent("x"), 503, True),
        (BulkheadFull("x"), 503, True),
        (CircuitOpen("x", retry_after=3), 503, True),
        (Unanswered("x"), 504, True),
        (Remote("x", status=404), 502, True),
        (CommitUnknown("x"), 503, False),
        (Unavailable("x"), 503, False),
        (Busy("x"), 503, False),
    ],
)
def test_each_error_has_its_status_and_says_whether_to_retry(
    error: Exception, status: int, do_not_retry: bool
) -> None:
    problem = problem_of(error)
    assert problem is not None
    assert (problem.status, problem.do_not_retry) == (status, do_not_retry)


@pytest.mark.parametrize("error", [KeyError("secret"), TimeoutError(), Undecodable("its own")])
def test_other_errors_are_nobody_s_business(error: Exception) -> None:
    assert problem_of(error) is None
    problem = unexpected("c-1")
    assert problem.status == 500
    assert "c-1" in problem.detail


def test_the_detail_of_a_nested_error_stays_inside() -> None:
    problem = problem_of(NotSent("no connection to postgres://user:pw@db"))
    assert problem is not None
    assert "pw" not in problem.detail


def test_a_refusal_comes_back_as_it_was_said() -> None:
    refused = Refused(
        "only 3 left", status=422, type="https://shop.example/short", data={"left": 3, "at": {1}}
    )
    problem = problem_of(refused)
    assert problem is not None
    problem = with_correlation(problem, "c-1")
    body = problem.body("/orders")
    assert json.loads(body) == {
        "type": "https://shop.example/short",
        "title": "Unprocessable Entity" if title_of(422).endswith("Entity") else title_of(422),
        "status": 422,
        "detail": "only 3 left",
        "instance": "/orders",
        "left": 3,
        "at": [1],
        "correlation_id": "c-1",
    }
    read = read_problem(422, {"Content-Type": CONTENT_TYPE}, body, wall=0.0).remote()
    here = problem.remote()
    for remote in (read, here):
        assert str(remote) == "only 3 left"
        assert remote.status == 422
        assert remote.type == "https://shop.example/short"
        assert remote.title == title_of(422)
        assert remote.data == {"left": 3, "at": [1], "correlation_id": "c-1"}
        assert not remote.retryable


def test_data_cannot_replace_the_standard_members() -> None:
    problem = Problem(409, "no", data={"status": 200, "detail": "yes", "extra": 1})
    members = json.loads(problem.body("/x"))
    assert (members["status"], members["detail"], members["extra"]) == (409, "no", 1)
    assert problem.remote().data == {"extra": 1}


def test_a_validation_problem_names_the_field() -> None:
    problem = problem_of(WrongRequest("Expected `int`, got `str`", field="$.items[3].sku"))
    assert problem is not None
    assert problem.status == 400
    assert problem.data["errors"] == [
        {"field": "$.items[3].sku", "detail": "Expected `int`, got `str`"}
    ]


def test_back_off_and_do_not_retry_travel_in_headers() -> None:
    headers = Problem(503, "x", retry_after=1.2, do_not_retry=True).headers()
    assert headers == {"Retry-After": "2", "callcast-do-not-retry": "1"}
    remote = read_problem(503, headers, b"", wall=0.0).remote()
    assert remote.retry_after == 2.0
    assert remote.do_not_retry
    assert not remote.retryable
    assert Problem(503, "x").headers() == {}


@pytest.mark.parametrize(
    ("media", "body", "detail", "data"),
    [
        ("text/html", b"<h1>Bad\n\x00Gateway</h1>", "<h1>Bad Gateway</h1>", {}),
        ("application/json", b'{"detail":"Not here"}', "Not here", {}),
        ("application/json", b'{"error":"x"}', '{"error":"x"}', {"error": "x"}),
        ("application/json", b"[1]", "[1]", {}),
        ("application/json", b"{broken", "{broken", {}),
        ("application/problem+json", b"[" * 100_000, "[" * 500, {}),
        ("", b"", "Bad Gateway", {}),
        ("text/plain", "größer".encode(), "größer", {}),
        (
            "application/json",
            b'{"detail":7,"title":[],"type":1}',
            '{"detail":7,"title":[],"type":1}',
            {},
        ),
    ],
)
def test_an_error_that_is_no_problem_details_still_says_something(
    media: str, body: bytes, detail: str, data: dict[str, object]
) -> None:
    remote = read_problem(502, {"Content-Type": media}, body, wall=0.0).remote()
    assert str(remote) == detail
    assert remote.data == data
    assert remote.status == 502
    assert remote.type == "about:blank"


def test_a_foreign_body_is_bounded() -> None:
    assert len(bounded_text(b"x" * 10_000)) == 500
    detail = str(
        read_problem(
            500,
            {"Content-Type": "application/json"},
            b'{"detail":"' + b"y" * 9_000 + b'"}',
            wall=0.0,
        ).remote()
    )
    assert len(detail) == 2_000


def test_an_unknown_status_has_a_title() -> None:
    assert title_of(799) == "Status 799"
