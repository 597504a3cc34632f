"""What the wheel holds, and what it does not."""

from __future__ import annotations

import zipfile

import pytest
from wheel_parts import ROOT, build_wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel")))


def test_the_wheel_has_the_package_the_shop_and_the_licence(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "callcast/__init__.py" in names
    assert "callcast/py.typed" in names
    assert "callcast/examples/shop/orders.py" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_every_module_of_the_source_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    source = ROOT / "src"
    there = {file.relative_to(source).as_posix() for file in source.rglob("*.py")}
    assert there <= set(wheel.namelist())


def test_the_wheel_has_nothing_but_code_and_its_own_papers(wheel: zipfile.ZipFile) -> None:
    strange = [
        name
        for name in wheel.namelist()
        if not name.endswith((".py", "py.typed", ".sql")) and ".dist-info/" not in name
    ]
    assert not strange
    assert not [n for n in wheel.namelist() if n.startswith(("tests/", "bench/")) or "/tests/" in n]


def test_no_module_of_the_wheel_builds_objects_from_bytes(wheel: zipfile.ZipFile) -> None:
    for name in wheel.namelist():
        if name.endswith(".py"):
            text = wheel.read(name).decode()
            for module in ("pickle", "yaml", "marshal", "dill"):
                assert f"import {module}" not in text, name


def test_the_command_is_installed_with_the_wheel(wheel: zipfile.ZipFile) -> None:
    (entry,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "callcast = callcast.cli:main" in wheel.read(entry).decode()
