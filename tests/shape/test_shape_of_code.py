"""The form of the code: sizes, floors, late imports, dangerous modules, unfinished marks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "callcast"
EVERYWHERE = (PACKAGE, *(ROOT / each for each in ("tests", "bench", "scripts", "examples")))
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
DANGEROUS = {"pickle", "cPickle", "yaml", "marshal", "dill", "shelve", "jsonpickle", "cloudpickle"}
"""Modules that turn bytes from outside into code or objects of any class."""
LATE = {
    "__init__.py",  # names load on first use
    "testing/__init__.py",
    "runtime/registry.py",
    # Commands: the shop, its view and each subcommand load when they are asked for.
    "cli/app.py",
    "cli/loading.py",
    "cli/demo/command.py",
    "cli/demo/view.py",
    "testing/broker_suite/child.py",  # a child process finds the broker that it was named
}
"""Files that may load modules by name; nowhere may a name come from a message."""
EXCUSED = {
    "S608": "SQL is put together from constants and numbers of our own; values are bound",
}
"""Checks that are silenced too often to say each time why."""
UNFINISHED = re.compile(
    r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK|NotImplemented" + r"Error)\b"
)
TYPE_ONLY = {"__init__.py", "testing/__init__.py"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: Path) -> list[Path]:
    found = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    assert found
    return found


def inside(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def functions(tree: ast.AST) -> Iterator[Function]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {node.module or ""} if isinstance(node, ast.ImportFrom) else set()


def test_no_file_is_longer_than_its_limit() -> None:
    lengths = {file: len(file.read_text().splitlines()) for file in sources(*EVERYWHERE)}
    assert not {file: lines for file, lines in lengths.items() if lines > FILE_LINES_MAX}


def test_no_function_is_longer_than_its_limit() -> None:
    long = [
        f"{file}:{function.lineno} {function.name}"
        for file in sources(*EVERYWHERE)
        for function in functions(ast.parse(file.read_text()))
        if (function.end_lineno or 0) - function.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not long


def test_every_file_says_what_it_is_for() -> None:
    silent = [f for f in sources(*EVERYWHERE) if not ast.get_docstring(ast.parse(f.read_text()))]
    assert not silent


def test_nothing_that_builds_objects_from_bytes_is_imported() -> None:
    found = {
        (inside(file), name)
        for file in sources(PACKAGE)
        for node in ast.walk(ast.parse(file.read_text()))
        for name in imported(node)
        if name.partition(".")[0] in DANGEROUS
    }
    assert not found


def test_no_import_stands_inside_a_function() -> None:
    found = {
        f"{inside(file)}:{node.lineno}"
        for file in sources(PACKAGE)
        for function in functions(ast.parse(file.read_text()))
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert not {place for place in found if not place.startswith("runtime/registry.py")}


def test_modules_are_loaded_by_name_in_few_known_places() -> None:
    loading = {
        inside(f) for f in sources(PACKAGE) if re.search(r"import_module|__import__", f.read_text())
    }
    assert loading <= LATE


def test_no_import_is_hidden_from_the_running_program() -> None:
    hiding = {
        inside(file)
        for file in sources(PACKAGE)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Name) and node.id == "TYPE_CHECKING"
    }
    assert hiding <= TYPE_ONLY


def test_nothing_is_left_unfinished() -> None:
    places = [
        f"{file}:{number}"
        for file in sources(*EVERYWHERE)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not places


def test_every_silenced_check_says_why() -> None:
    excused = "|".join(EXCUSED)
    bare = re.compile(
        rf"# noqa: (?!({excused})$)[A-Z0-9, ]+$|# noqa\s*$|# (type|pyright): ignore\s*$"
    )
    places = [
        f"{inside(file)}:{number}"
        for file in sources(PACKAGE)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert not places


def test_nothing_names_a_machine_it_was_written_on() -> None:
    home = re.compile(r"/(home|root)/\w|/Users/[a-z]|/tmp" + r"/\w+/|/wo" + r"rk/")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:  # not a checkout: an unpacked source archive
        files = sources(PACKAGE)
    else:
        files = [ROOT / name for name in listed.stdout.splitlines()]
    places = [
        f"{file}:{number}"
        for file in files
        if file.suffix in {".py", ".md", ".toml", ".txt", ".json", ""} and file.is_file()
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if home.search(line)
    ]
    assert not places


def test_imports_go_down_and_never_up() -> None:
    """The contracts of `[tool.importlinter]` hold."""
    lint = Path(sys.executable).parent / "lint-imports"
    run = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("mark", ["TO" + "DO: later", "raise NotImplemented" + "Error"])
def test_the_search_for_unfinished_marks_finds_them(mark: str) -> None:
    assert UNFINISHED.search(f"    {mark}")
