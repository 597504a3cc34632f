"""Times as operators write them."""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest

from callcast.cli.failure import Failure
from callcast.cli.times import shown, time_of

NOW = 1_795_428_600.0  # 2026-11-23T10:10:00Z


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("30s", 30.0),
        ("15m", 900.0),
        ("2h", 7_200.0),
        ("1.5h", 5_400.0),
        ("1d", 86_400.0),
        ("11:10", 0.0),  # of this machine's zone
        ("11:09:30", 30.0),
        ("9:10", 7_200.0),
        ("2026-11-23T11:00", 600.0),
        ("2026-11-23 11:00", 600.0),
        ("2026-11-23T10:00:00Z", 600.0),
        ("2026-11-23T12:00:00+02:00", 600.0),
        ("2026-11-22T11:10", 86_400.0),
    ],
)
def test_times_are_read(text: str, ago: float) -> None:
    assert time_of(text, NOW) == NOW - ago


@pytest.mark.parametrize(
    "text", ["", "yesterday", "25:00", "15", "15 m", "-5m", "2026-13-01T00:00"]
)
def test_what_is_no_time_is_told_with_what_is_one(text: str) -> None:
    with pytest.raises(Failure, match="is no time") as caught:
        time_of(text, NOW)
    assert "15m" in caught.value.fix


def test_a_time_is_shown_in_the_zone_of_the_machine() -> None:
    assert shown(NOW + 0.25) == "2026-11-23T11:10:00.250+01:00"
    assert shown(None) == ""
    assert time_of(shown(NOW), 0.0) == NOW
