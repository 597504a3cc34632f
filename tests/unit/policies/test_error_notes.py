"""What is told of an error: notes of a dead letter, and the history of what was tried."""

from __future__ import annotations

import pytest

from callcast.core.errors import (
    Attempt,
)
from callcast.policies.history import attach_attempts, attempts_of, mark_run, run_of
from callcast.policies.notes import bounded, error_notes, summary, text_of, type_name


@pytest.mark.parametrize(
    ("text", "limit", "clean"),
    [
        ("short", 10, "short"),
        ("nul\x00byte", 20, "nul\\x00byte"),
        ("lone \ud800 surrogate", 40, "lone \\ud800 surrogate"),
        ("€uro", 10, "€uro"),
        ("0123456789", 7, "01...89"),
        ("a\n" + "b" * 50, 11, "a\nb\n...\nbbb"),
    ],
)
def test_text_is_clean_and_bounded(text: str, limit: int, clean: str) -> None:
    assert bounded(text, limit) == clean
    assert len(bounded(text, limit)) <= limit
    bounded(text, limit).encode("utf-8")


def _giant() -> None:
    raise ValueError("x" * 1_000_000 + "\x00END")


def test_a_giant_error_leaves_a_small_dead_letter_with_both_ends_of_its_stack() -> None:
    with pytest.raises(ValueError, match="xxx") as caught:
        _giant()
    notes = error_notes(caught.value, stack=True)
    assert len(notes["callcast-error-message"]) == 2_000
    assert len(notes["callcast-error-stack"]) == 8_192
    assert notes["callcast-error-stack"].startswith("Traceback")
    assert notes["callcast-error-stack"].rstrip().endswith("\\x00END")
    assert "\x00" not in "".join(notes.values())


def test_an_error_that_cannot_speak_is_told_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert text_of(Mute()) == "(its __str__ raised RuntimeError)"
    assert summary(Mute()) == "Mute: (its __str__ raised RuntimeError)"
    assert type_name(ValueError()) == "ValueError"
    assert type_name(Mute()).endswith("Mute")


def test_history_is_kept_on_errors_that_are_raised_again_and_on_frozen_ones() -> None:
    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    two = [Attempt(1, "a", 0.1), Attempt(2, "b", 0.2)]
    error = OSError("again and again")
    error.add_note("the user's own")
    for _ in range(3):
        attach_attempts(error, two)
    assert attempts_of(error) == tuple(two)
    assert error.__notes__ == [
        "the user's own",
        "callcast: attempt 1 took 0.100 s: a",
        "callcast: attempt 2 took 0.200 s: b",
    ]
    attach_attempts(Frozen(), two)
    mark_run(Frozen(), 3)
    assert attempts_of(Frozen()) == ()
    assert run_of(Frozen()) is None
    alone = OSError("once")
    attach_attempts(alone, two[:1])
    assert not hasattr(alone, "__notes__")
