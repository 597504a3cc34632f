"""The public interface is a list, and this is its test."""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import callcast

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "public_interface.py"
TOP_MAX = 30


def interface() -> ModuleType:
    spec = importlib.util.spec_from_file_location("public_interface", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_public_names_and_signatures_are_those_of_api_txt() -> None:
    shown = "\n".join(interface().lines()) + "\n"
    assert shown == (ROOT / "tests" / "shape" / "api.txt").read_text(), (
        "the interface has changed: if that is meant, run"
        " .venv/bin/python scripts/public_interface.py > tests/shape/api.txt"
    )


def test_at_most_thirty_names_stand_at_the_top() -> None:
    assert len(callcast.__all__) <= TOP_MAX
    assert callcast.__all__ == sorted(callcast.__all__)
    assert dir(callcast) == callcast.__all__


def test_every_public_name_says_what_it_is() -> None:
    silent = [name for name, value in interface().public_names() if not inspect.getdoc(value)]
    assert not silent


def test_every_public_member_says_what_it_does() -> None:
    silent = [
        f"{name}.{member}"
        for name, value in interface().public_names()
        if inspect.isclass(value) and not name.endswith((".BrokerSuite", ".Struct"))
        for member, function in vars(value).items()
        if not member.startswith("_")
        and (inspect.isfunction(function) or isinstance(function, property | classmethod))
        and not inspect.getdoc(getattr(value, member))
    ]
    assert not silent


def test_importing_callcast_loads_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import callcast;"
        " print(sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in (
        "aiohttp",
        "starlette",
        "uvicorn",
        "opentelemetry",
        "click",
        "msgspec",
        "asyncio",
    ):
        assert f"'{heavy}'" not in run.stdout


def test_importing_callcast_starts_nothing() -> None:
    code = (
        "import threading, asyncio, callcast\n"
        "for name in callcast.__all__: getattr(callcast, name)\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "import logging\n"
        "assert not logging.getLogger().handlers\n"
        "assert not logging.getLogger('callcast').handlers\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=dict(os.environ))
