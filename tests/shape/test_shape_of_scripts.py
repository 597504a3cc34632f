"""The commands: they parse, they can be run, and they say what is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("scripts/test", "scripts/battery", "scripts/demo", "scripts/servers", ".ci/run")
SHELL = shutil.which("sh") or "/bin/sh"


def sh(code: str, path: Path, *, uid: int = 1000) -> subprocess.CompletedProcess[str]:
    """Run shell code after `scripts/environment`, with nothing on the path but what is given."""
    for name, text in {
        "id": f"echo {uid}",
        "cksum": "echo 1 2",
        "cat": "read line <$1; echo $line",
    }.items():
        fake(path, name, text)
    return subprocess.run(
        [SHELL, "-c", f". {ROOT}/scripts/environment; {code}"],
        cwd=path,
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def fake(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!{SHELL}\n{text}\n")
    (folder / name).chmod(0o755)


def gates() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "coverage_gates", ROOT / "scripts/coverage_gates.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", [*SCRIPTS, "scripts/environment"])
def test_a_script_parses(script: str) -> None:
    subprocess.run([SHELL, "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize("folder", ["bench", "scripts", "tests", "examples"])
def test_no_file_hides_a_module_of_the_standard_library(folder: str) -> None:
    """A script's own folder is the first place where Python looks for what it imports."""
    here = [*(ROOT / folder).glob("*.py"), *(ROOT / folder).glob("*/__init__.py")]
    names = {path.parent.name if path.stem == "__init__" else path.stem for path in here}
    assert names
    assert names & sys.stdlib_module_names == set()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def test_without_a_python_that_is_new_enough_the_script_says_so(tmp_path: Path) -> None:
    fake(tmp_path, "python3", "exit 1")
    done = sh("find_python", tmp_path)
    assert done.returncode == 2
    assert "needs Python 3.11 or later" in done.stderr


def test_the_first_python_that_is_new_enough_is_taken(tmp_path: Path) -> None:
    fake(tmp_path, "python3.13", "exit 1")
    fake(tmp_path, "python3.12", "exit 0")
    fake(tmp_path, "python3", "exit 0")
    assert sh("find_python", tmp_path).stdout == "python3.12\n"


def test_a_python_without_venv_is_told_with_the_package_that_brings_it(tmp_path: Path) -> None:
    fake(tmp_path, "python3", 'case "$2" in *ensurepip*) exit 1;; *) echo python3.11-venv;; esac')
    done = sh("need_venv python3", tmp_path)
    assert done.returncode == 2
    assert "apt-get install python3.11-venv" in done.stderr


def test_root_has_the_package_installed(tmp_path: Path) -> None:
    fake(tmp_path, "python3", 'case "$2" in *ensurepip*) exit 1;; *) echo python3.11-venv;; esac')
    fake(tmp_path, "apt-get", 'echo "$@" >>said')
    done = sh("need_venv python3", tmp_path, uid=0)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (tmp_path / "said").read_text() == "update -qq\ninstall -y -qq python3.11-venv\n"


def test_it_installs_once_and_again_when_the_project_has_changed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    fake(tmp_path / ".venv" / "bin", "python", 'case "$*" in *install*) echo "$*" >>said;; esac')
    for _ in range(2):
        done = sh("prepare demo --editable '.[rich]'", tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    assert (tmp_path / "said").read_text().count("--editable .[rich]") == 1
    fake(tmp_path, "cksum", "echo 3 4")
    done = sh("cksum() { echo 3 4; }; prepare demo --editable '.[rich]'", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "said").read_text().count("--editable .[rich]") == 2


def test_it_installs_again_when_something_else_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    fake(tmp_path / ".venv" / "bin", "python", 'case "$*" in *install*) echo "$*" >>said;; esac')
    for groups in ("--group dev", "--group dev", "--group dev --group bench"):
        done = sh(f"prepare test --editable . {groups}", tmp_path)
        assert done.returncode == 0, done.stderr
    asked = [line for line in (tmp_path / "said").read_text().splitlines() if "editable" in line]
    assert [line.partition("--editable")[2] for line in asked] == [
        " . --group dev",
        " . --group dev --group bench",
    ]


RUNS = {
    "TESTS": "coverage run -m pytest --ignore=tests/conformance --ignore=tests/faults",
    "SUITE": "coverage run -m pytest tests/conformance",
    "FAULTS": "python -m pytest tests/faults",
}
"""What runs side by side, by the variable with the code that it ends with here."""


def all_checks(folder: Path, servers: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `scripts/test` with tools that find nothing, and a `scripts/servers` of that code."""
    tools = folder / ".venv" / "bin"
    tools.mkdir(parents=True)
    (folder / "scripts").mkdir()
    for name in ("test", "environment"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
    (folder / "pyproject.toml").write_text("")
    ends = " ".join(
        f'"{run.partition(" ")[2]}") echo {name} said this; exit ${{{name}:-0}};;'
        for name, run in RUNS.items()
    )
    for name in ("python", "ruff", "mypy", "pyright", "lint-imports", "coverage"):
        fake(tools, name, f'case "$*" in {ends} esac')
    fake(folder / "scripts", "servers", f'echo "$@" >>said\n{servers}')
    return subprocess.run(
        [SHELL, "scripts/test"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("fails", ["", *RUNS])
def test_all_checks_start_the_servers_and_let_go_of_them(tmp_path: Path, fails: str) -> None:
    done = all_checks(tmp_path, "exit 0", **({fails: "1"} if fails else {}))
    assert done.returncode == bool(fails), done.stdout
    assert all(f"{name} said this" in done.stdout for name in RUNS)
    failed = [line.strip() for line in done.stdout.partition("failed:")[2].splitlines()]
    assert [run for run in RUNS.values() if run in failed] == ([RUNS[fails]] if fails else [])
    started, stopped = (tmp_path / "said").read_text().splitlines()
    verb, _, holder, *names = started.split()
    assert (verb, *names) == ("start", "rabbitmq", "kafka")
    assert stopped == f"stop --for {holder}"


def test_servers_that_do_not_start_fail_all_checks_in_ci_only(tmp_path: Path) -> None:
    (tmp_path / "ci").mkdir()
    (tmp_path / "home").mkdir()
    broken = '[ "$1" != start ]'
    ci = all_checks(tmp_path / "ci", broken, CI="true")
    assert ci.returncode == 1
    assert "scripts/servers start rabbitmq kafka" in ci.stdout.partition("failed:")[2]
    assert all_checks(tmp_path / "home", broken).returncode == 0


def collected(*arguments: str) -> str:
    """What pytest would run, or that it would run nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_takes_minutes_is_in_the_battery_and_nowhere_else() -> None:
    long = "test_a_silence_that_lasts_is_noticed"
    short = "all_goes_on[producer-a_rabbitmq_of_its_own-cut_up]"  # one of many
    tests = "tests/faults/test_broker_network.py"
    everyday, battery = collected(tests), collected(tests, "-m", "battery")
    assert short in everyday
    assert long not in everyday
    assert long in battery
    assert short not in battery


def test_the_battery_hands_its_arguments_on_and_wants_its_servers(tmp_path: Path) -> None:
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    for name in ("battery", "environment"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    (tmp_path / "pyproject.toml").write_text("")
    fake(tools, "python", 'case "$*" in *pytest*) echo "$CI $*";; esac')
    done = subprocess.run(
        [SHELL, "scripts/battery", "-k", "network"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "true -m pytest -m battery --durations=0 -k network\n"


def entry(*, missing: int) -> dict[str, object]:
    summary = {"num_statements": 10, "covered_lines": 10 - missing}
    return {"summary": summary, "missing_lines": list(range(missing)), "missing_branches": []}


def test_a_line_of_a_pure_floor_that_did_not_run_is_below_its_gate() -> None:
    files = {
        Path("src/callcast/core/work.py"): entry(missing=1),
        Path("src/callcast/core/context.py"): entry(missing=0),
        Path("src/callcast/runtime/bus.py"): entry(missing=1),
    }
    assert list(gates().misses(files)) == [
        "src/callcast/core/work.py: 90.0 %, lines [0], branches []"
    ]


def test_all_files_are_summed_for_the_gate_of_all() -> None:
    total = gates().summed([entry(missing=1), entry(missing=0)])
    assert total.percent == 95.0
