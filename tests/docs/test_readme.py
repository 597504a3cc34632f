"""The README is true: every snippet runs and every command is tried."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from http_parts import serving
from readme_parts import ROOT, blocks, commands, program
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from callcast import Bus
from callcast.runtime import registry
from callcast.testing import ManualClock

COMMANDS = {
    "scripts/demo": "tests/docs/test_readme.py",
    "scripts/demo --orders 50 -o json": "tests/docs/test_readme.py",
    "scripts/test": ".ci/run",
    "callcast demo --broker": "tests/e2e/test_demo_on_servers.py",
    "callcast run": "tests/unit/cli/test_run_command.py",
    "callcast backup": "tests/unit/cli/test_broker_commands.py",
    "callcast dlq redrive": "tests/unit/cli/test_broker_commands.py",
}
"""Where each command of the README is tried."""


DEMO_MAX = 120.0
"""Seconds that the demo may take with its defaults while other tests run beside it."""


def module(name: str) -> ModuleType:
    """A snippet of the README, run as a module of this name."""
    made = ModuleType(name)
    sys.modules[name] = made
    exec(compile(program(f"{name}.py"), f"{name}.py", "exec"), made.__dict__)
    return made


def test_every_command_of_the_readme_is_tried_somewhere() -> None:
    assert commands() == set(COMMANDS)
    for command, place in COMMANDS.items():
        assert runs(command, (ROOT / place).read_text(encoding="utf-8")), f"{place}: {command}"


def runs(command: str, text: str) -> bool:
    """Whether a test, or a shell script, gives the words of this command to be run.

    In a test they stand one behind the other in the arguments of a call: that of a function of the
    test's own for ``callcast``, which it leaves out.
    """
    words = command.removeprefix("callcast ").split()
    if re.search(rf"^(exec )?{re.escape(command)}( |$)", text, re.MULTILINE):
        return True
    if text.startswith("#!"):
        return False
    calls = [words_of(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return any(words == given[at : at + len(words)] for given in calls for at in range(len(given)))


def words_of(call: ast.Call) -> list[object]:
    """The arguments of a call that are constants, those inside of lists too."""
    given: list[object] = []
    for argument in call.args:
        nested = argument.elts if isinstance(argument, ast.List | ast.Tuple) else [argument]
        given += [each.value if isinstance(each, ast.Constant) else None for each in nested]
    return given


def test_a_command_that_is_only_mentioned_is_not_run() -> None:
    """The check above is worth something."""
    assert runs("callcast dlq redrive", 'run("dlq", "redrive", "--all")')
    assert not runs("callcast dlq redrive", '"""callcast dlq redrive"""\nrun("dlq", "ls")')
    assert runs("scripts/test", "#!/bin/sh\nexec scripts/test\n")
    assert not runs("scripts/test", "#!/bin/sh\n# scripts/test\n")


def test_every_snippet_of_the_readme_is_run_here() -> None:
    names = {text.split(":")[0].removeprefix("# ") for text in blocks("python")}
    assert names == {"hello.py", "existing.py", "once.py"}


def test_hello_prints_what_the_readme_shows(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(program("hello.py"))
    ran = subprocess.run(
        [sys.executable, "hello.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == (blocks("text")[0], "")


def test_every_broker_of_the_table_is_there_with_its_extra() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    table = text.partition("| broker | extra | URL |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip("` ") for cell in line.strip("|").split("|")] for line in table.split("\n")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    kinds = {
        "SqliteBroker": "",
        "MemoryBroker": "",
        "RabbitBroker": "rabbitmq",
        "KafkaBroker": "kafka",
    }
    found = {}
    for _, extra, url in rows[1:]:
        assert not extra or extras[extra]
        found[type(registry.open_broker(url, ManualClock())).__name__] = extra
    assert found == kinds


async def test_an_existing_api_is_called_with_a_typed_contract() -> None:
    async def user(request: Request) -> JSONResponse:
        assert request.headers["x-client"] == "demo"
        return JSONResponse({"id": int(request.path_params["id"]), "name": "Ada", "age": 36})

    api = Starlette(routes=[Route("/users/{id}", user)])
    existing = module("existing")
    async with serving(api) as url:
        name = await existing.name_of(7, url)
    assert name == "Ada"
    assert f'`await name_of(7, url)` is `"{name}"`' in (ROOT / "README.md").read_text("utf-8")


async def test_an_effect_happens_once_and_its_event_leaves_after_the_commit() -> None:
    once = module("once")
    packed: list[str] = []

    async def note(order: object) -> None:
        packed.append(order.id)  # type: ignore[attr-defined]

    once.warehouse.on(once.PACKED)(note)
    async with Bus("memory://", services=[once.warehouse]) as bus:
        for _ in range(2):
            await bus.publish(once.PLACED, once.Order("o-1"), id="m-1")
        await bus.idle()
    assert packed == ["o-1"]


def script(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False, env=environment
    )


@pytest.mark.timeout(180)
def test_the_demo_closes_its_account() -> None:
    assert script("scripts/demo", "--help").returncode == 0  # what is to be installed is, by now
    began = time.monotonic()
    ran = script("scripts/demo")
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2_000:]
    assert "orders is accounted for" in ran.stdout
    assert time.monotonic() - began < DEMO_MAX


@pytest.mark.timeout(180)
def test_the_demo_prints_nothing_but_json_when_asked() -> None:
    ran = script("scripts/demo", "--orders", "50", "-o", "json")
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2_000:]
    account = json.loads(ran.stdout)
    assert account["placed"] == 50
    assert account["confirmed"] == account["fulfilled"] + account["dead"] + account["lost"]
    assert (account["lost"], account["twice"]) == (0, 0)


def test_the_test_command_is_what_the_build_server_runs() -> None:
    assert "exec scripts/test" in (ROOT / ".ci" / "run").read_text()
    assert "coverage run -m pytest" in (ROOT / "scripts" / "test").read_text()
