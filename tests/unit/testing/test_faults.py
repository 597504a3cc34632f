"""Faults at named places, in this process and in children that really die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from callcast.core.errors import Misuse
from callcast.testing.faults import FAILPOINTS, LOG, Faults, InjectedError

CHILD = """
from callcast.testing.faults import Faults
faults = Faults.from_environment()
for number in range(3):
    print(number, flush=True)
    faults("a.place")
print("end", flush=True)
"""


def test_only_the_armed_place_acts_and_every_hit_is_counted() -> None:
    faults = Faults({"a.place": "raise"})
    faults("another.place")
    for _ in range(2):
        with pytest.raises(InjectedError, match=r"a\.place"):
            faults("a.place")
    assert faults.hits == {"another.place": 1, "a.place": 2}


def test_a_numbered_hit_acts_once() -> None:
    faults = Faults({"a.place@2": "raise"})
    faults("a.place")
    with pytest.raises(InjectedError):
        faults("a.place")
    faults("a.place")


def test_a_pause_blocks_for_its_seconds(tmp_path: Path) -> None:
    faults = Faults({"a.place": "pause:0.05"}, tmp_path / "log")
    start = time.monotonic()
    faults("a.place")
    assert time.monotonic() - start >= 0.05
    assert (tmp_path / "log").read_text() == f"{os.getpid()} a.place\n"


@pytest.mark.parametrize(
    "action", ["explode", "pause", "pause:", "pause:soon", "kill:1", "stop:", ""]
)
def test_an_unknown_action_is_misuse(action: str) -> None:
    with pytest.raises(Misuse, match="use kill, raise, stop or pause"):
        Faults({"a.place": action})


@pytest.mark.parametrize("place", ["", "@2", "a@b"])
def test_a_place_without_a_name_or_with_an_odd_hit_is_misuse(place: str) -> None:
    with pytest.raises(Misuse, match="write 'name'"):
        Faults({place: "raise"})


def test_an_environment_that_says_nothing_arms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FAILPOINTS, raising=False)
    monkeypatch.delenv(LOG, raising=False)
    Faults.from_environment()("a.place")


def spawn(armed: str, log: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, FAILPOINTS: armed, LOG: str(log)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_process_has_reported_where_it_dies(tmp_path: Path) -> None:
    child = spawn("another=raise, a.place@2=kill", tmp_path / "log")
    out, _ = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    assert out == "0\n1\n"
    assert (tmp_path / "log").read_text() == f"{child.pid} a.place\n"


@pytest.mark.parametrize("armed", ["a.place@2=stop", "a.place@2=stop:0.01"])
def test_a_stopped_process_goes_on_when_it_is_told_to(tmp_path: Path, armed: str) -> None:
    child = spawn(armed, tmp_path / "log")
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(child.pid, signal.SIGCONT)
    out, _ = child.communicate(timeout=30)
    assert child.returncode == 0
    assert out == "0\n1\n2\nend\n"
