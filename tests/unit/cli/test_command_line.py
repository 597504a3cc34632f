"""The command group: help, suggestions, and how errors become sentences and exit codes."""

from __future__ import annotations

import errno

import click
import pytest
from click.testing import CliRunner, Result

from callcast.cli.app import COMMANDS, main
from callcast.cli.failure import Failure, Partial, Unreachable, failure_of
from callcast.core.errors import Misuse, NotPermitted, NotSent, Unavailable


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_help_lists_every_command_without_loading_it() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name, (_, line) in COMMANDS.items():
        assert name in result.stdout
        assert line in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    if name not in {"dlq", "outbox", "topology"}:  # groups: their commands have them
        assert "Examples:" in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("dlq", "ls"),
        ("dlq", "show"),
        ("dlq", "redrive"),
        ("dlq", "skip"),
        ("topology", "diff"),
        ("topology", "apply"),
        ("topology", "retire"),
    ],
)
def test_every_command_of_a_group_shows_examples(words: tuple[str, str]) -> None:
    assert "Examples:" in run(*words, "--help").stdout


def test_the_line_of_the_list_is_what_the_command_says() -> None:
    for name, (_, line) in COMMANDS.items():
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert command.help is not None
        assert line.endswith(".")


def test_a_misspelt_command_is_a_usage_error_with_a_suggestion() -> None:
    result = run("queus")
    assert result.exit_code == 2
    assert "queues" in result.stderr


def test_an_unknown_option_is_a_usage_error() -> None:
    assert run("queues", "--colour").exit_code == 2


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Misuse("a bad setting"), 2, "a bad setting"),
        (NotSent("nobody there"), 3, "nobody there"),
        (Unavailable("locked"), 3, "locked"),
        (Unavailable("amqp://bob:secret@host: away"), 3, "amqp://***@host: away"),
        (NotPermitted("bob may not read /shop"), 4, "bob may not read /shop"),
        (caused(NotSent("m-1"), NotPermitted("bob may not write")), 4, "bob may not write"),
        (PermissionError(errno.EACCES, "Permission denied", "/x.db"), 4, "/x.db: Permission"),
        (TimeoutError(), 124, "deadline"),
        (TimeoutError("orders/billing has 3 left"), 124, "3 left"),
        (OSError(errno.ENOSPC, "No space left on device", "/x.db"), 2, "No space left"),
        (OSError("odd"), 2, "odd"),
    ],
)
def test_errors_become_sentences_and_codes(error: Exception, code: int, text: str) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.exit_code == code
    assert text in failure.message


def test_an_error_that_nobody_foresaw_keeps_its_traceback() -> None:
    assert failure_of(ZeroDivisionError()) is None


def command_that_raises(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Result:
    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setattr(type(main), "get_command", lambda *_: broken)
    return run("broken")


def test_a_failure_says_what_to_try_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    result = command_that_raises(Failure("no such thing", fix="callcast doctor"), monkeypatch)
    assert result.stdout == ""
    assert result.stderr == "error: no such thing\n  try: callcast doctor\n"
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable("x"), 3),
        (Partial("x"), 5),
        (KeyboardInterrupt(), 130),
        (Misuse("x"), 2),
        (TimeoutError(), 124),
    ],
)
def test_the_exit_code_says_what_kind_of_failure_it_was(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command_that_raises(error, monkeypatch).exit_code == code


def test_an_unforeseen_error_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    result = command_that_raises(ZeroDivisionError("x"), monkeypatch)
    assert isinstance(result.exception, ZeroDivisionError)
