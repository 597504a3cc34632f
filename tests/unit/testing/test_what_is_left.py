"""The suite says what a broker left open: a failure seen once in a hundred runs cannot be asked."""

from __future__ import annotations

from pathlib import Path

from callcast.testing.broker_suite.closing import Left


async def test_a_file_that_was_left_open_is_named(tmp_path: Path) -> None:
    before = Left()
    assert before.since() == []
    with (tmp_path / "forgotten").open("wb") as file:
        [said] = before.since()
        assert said.startswith("1 file descriptors, of ")
        assert f"{file.fileno()} -> {tmp_path / 'forgotten'}" in said
    assert before.since() == []
