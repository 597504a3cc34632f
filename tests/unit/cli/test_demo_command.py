"""The command `demo` around the play: what it prints, and how it exits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from callcast.cli.app import main
from callcast.cli.demo import play
from callcast.cli.demo.account import Account, Fault, Verdict

ACCOUNT = Account(4, 3, 1, 0, 2, 1, 1, 0, 0, [Fault("poison order", 1.25, 1)])


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["demo", *args])


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a play that is over at once finds wrong; a test may add to it."""
    found: list[str] = []

    async def over(_self: play.Demo) -> Verdict:
        return Verdict(ACCOUNT, found)

    monkeypatch.setattr(play.Demo, "run", over)
    return found


def test_json_is_the_account_and_nothing_else(problems: list[str]) -> None:
    result = run("-o", "json")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "placed": 4,
        "confirmed": 3,
        "refused": 1,
        "unanswered": 0,
        "fulfilled": 2,
        "dead": 1,
        "redriven": 1,
        "lost": 0,
        "twice": 0,
        "faults": [{"kind": "poison order", "at": 1.25, "in_flight": 1}],
    }


def test_words_are_printed_without_being_asked_for(problems: list[str]) -> None:
    result = run()
    assert result.exit_code == 0
    assert "4 orders were placed" in result.stdout


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_is_wrong_is_said_and_exits_1(problems: list[str], form: str) -> None:
    problems.append("lost: o-1")
    result = run("-o", form)
    assert result.exit_code == 1
    assert "WRONG: lost: o-1" in (result.stderr if form == "json" else result.stdout)


def test_a_file_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    result = run("--broker", f"sqlite:///{tmp_path}/no/x.db")
    assert result.exit_code == 2
    assert f"mkdir -p {tmp_path}/no" in result.stderr


def test_fewer_orders_than_the_faults_need_are_a_usage_error(problems: list[str]) -> None:
    assert run("--orders", "5").exit_code == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_play_and_exits_130(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    ended: list[str] = []

    async def endless(_self: play.Demo) -> Verdict:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            ended.append("put away")
        raise AssertionError

    monkeypatch.setattr(play.Demo, "run", endless)
    result = run()
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted\n"
    assert ended == ["put away"]
