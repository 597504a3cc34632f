"""The headers of a call, written and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callcast.core.errors import Misuse
from callcast.transports.headers import (
    attempt_of,
    checked_headers,
    checked_value,
    correlation_of,
    format_key,
    format_retry_after,
    format_timeout,
    parse_key,
    parse_retry_after,
    parse_timeout,
    sendable,
    timeout_of,
)


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (0.85, "850m"),
        (0.8509, "850m"),
        (0.001, "1m"),
        (0.0001, "1m"),
        (99_999.999, "99999999m"),
        (100_000.0, "100000S"),
        (1e12, "99999999S"),
    ],
)
def test_remaining_time_is_rounded_down_and_never_zero(left: float, text: str) -> None:
    assert format_timeout(left) == text


@given(st.floats(min_value=0.001, max_value=1e7))
def test_remaining_time_never_grows_on_the_way(left: float) -> None:
    text = format_timeout(left)
    assert len(text) <= 9
    seconds = parse_timeout(text)
    assert seconds is not None
    assert 0 < seconds <= max(left, 0.001) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("850m", 0.85),
        ("2S", 2.0),
        ("1H", 3600.0),
        ("3M", 180.0),
        ("5u", 5e-6),
        ("7n", 7e-9),
        ("0m", 0.0),
        ("", None),
        ("m", None),
        ("12", None),
        ("123456789m", None),
        ("-1m", None),
        ("1.5S", None),
        ("²m", None),
    ],
)
def test_a_timeout_is_read_or_ignored(text: str, seconds: float | None) -> None:
    assert parse_timeout(text) == (None if seconds is None else pytest.approx(seconds))


def test_the_shortest_timeout_of_all_headers_counts() -> None:
    headers = {
        "callcast-timeout": "900m",
        "grpc-timeout": "1S",
        "x-envoy-expected-rq-timeout-ms": "250",
    }
    assert timeout_of(headers) == 0.25
    assert timeout_of({"grpc-timeout": "1S"}) == 1.0
    assert timeout_of({"callcast-timeout": "nonsense"}) is None
    assert timeout_of({"x-envoy-expected-rq-timeout-ms": "0"}) is None
    assert timeout_of({}) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("99999999999999999999", None),
        ("Tue, 99 Nov 2023 22:13:50 GMT", None),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_garbage_is_ignored(
    text: str, seconds: float | None
) -> None:
    assert parse_retry_after(text, 1_700_000_000.0) == seconds


def test_retry_after_is_rounded_up() -> None:
    assert format_retry_after(0.2) == "1"
    assert format_retry_after(3.0) == "3"
    assert format_retry_after(-1.0) == "0"


@pytest.mark.parametrize(
    ("text", "attempt"),
    [(None, 1), ("3", 3), ("0", 1), ("-2", 1), ("x", 1), ("1" * 20, 1), ("999999999", 1000)],
)
def test_the_attempt_is_a_small_number(text: str | None, attempt: int) -> None:
    assert attempt_of(text) == attempt


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=256))
def test_an_idempotency_key_comes_back_from_its_quotes(key: str) -> None:
    assert parse_key(format_key(key)) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('"8e03978e"', "8e03978e"),
        ("8e03978e", "8e03978e"),
        ('"a";p=1', "a"),
        ('"a\\"b"', 'a"b'),
        ('"a\\x"', None),
        ('"open', None),
        ('""', None),
        ("", None),
        ("a" * 257, None),
        ("é", None),
    ],
)
def test_an_idempotency_key_is_read_quoted_and_unquoted(text: str, key: str | None) -> None:
    assert parse_key(text) == key


@pytest.mark.parametrize("key", ["", "a" * 257, "a\r\nb", "é"])
def test_an_id_that_cannot_be_a_key_is_misuse(key: str) -> None:
    with pytest.raises(Misuse):
        format_key(key)


@pytest.mark.parametrize(
    ("headers", "id_"),
    [
        ({"x-correlation-id": "abc-1"}, "abc-1"),
        ({"x-request-id": "req_7"}, "req_7"),
        ({"x-correlation-id": "a", "x-request-id": "b"}, "a"),
        ({"x-correlation-id": "a b"}, None),
        ({"x-correlation-id": "a b", "x-request-id": "b"}, "b"),
        ({"x-correlation-id": "<script>"}, None),
        ({"x-correlation-id": "a\r\nSet-Cookie: x"}, None),
        ({"x-correlation-id": "a" * 257}, None),
        ({}, None),
    ],
)
def test_a_correlation_id_is_accepted_only_when_it_is_safe(
    headers: dict[str, str], id_: str | None
) -> None:
    assert correlation_of(headers) == id_


def test_what_no_header_may_hold_is_percent_encoded() -> None:
    assert sendable("a b") == "a b"
    assert sendable("a\r\nX: y") == "a%0D%0AX%3A%20y"
    assert sendable("ü") == "%C3%BC"


@pytest.mark.parametrize(
    "headers",
    [{"X-Bad\r\n": "1"}, {"": "1"}, {"X-Key": "a\r\nX-Other: b"}, {"callcast-timeout": "1m"}],
)
def test_headers_that_would_inject_others_are_misuse(headers: dict[str, str]) -> None:
    with pytest.raises(Misuse):
        checked_headers(headers, "peer 'x'")


def test_a_refused_value_is_not_repeated() -> None:
    with pytest.raises(Misuse) as caught:
        checked_value("Bearer s3cret\n", "peer 'x', auth")
    assert "s3cret" not in str(caught.value)
    assert checked_value("tab\tand ünicode", "x") == "tab\tand ünicode"
