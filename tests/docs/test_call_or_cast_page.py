"""The page that teaches the decision is true: its programs and commands are run, in its order."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest
from readme_parts import ROOT

from callcast.advise import advice_file
from callcast.advise.explain import TEXTS

DOCS = ROOT / "docs"
PAGE = (DOCS / "call-or-cast.md").read_text(encoding="utf-8")
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SVG = "{http://www.w3.org/2000/svg}"
MISTAKES = ("A02", "A04", "A05", "A06", "A07", "A14", "A15")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(folder: Path, command: str, environment: Mapping[str, str]) -> str:
    """What a command of the page prints; it has to end well."""
    name, *words = shlex.split(command)
    program = {"callcast": [sys.executable, "-m", "callcast"], "python": [sys.executable]}[name]
    ran = subprocess.run(
        [*program, *words],
        cwd=folder, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def said_of(picture: Element) -> tuple[str | None, set[str | None]]:
    """What a drawing shows but for the findings, of which some are about time."""
    return picture.findtext(f"{SVG}desc"), {each.text for each in picture.iter(f"{SVG}title")}


@pytest.mark.timeout(180)
def test_every_command_of_the_page_shows_what_the_page_shows(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for program in blocks("python"):
        if program.startswith("# "):
            (tmp_path / program[2 : program.index(":")]).write_text(program)
    environment: dict[str, str] = {}
    for part in "".join(blocks("console")).split("$ ")[1:]:
        command, _, shown = part.partition("\n")
        if command.startswith("export "):
            environment |= dict(each.split("=", 1) for each in command.split()[1:])
            continue
        printed = run(tmp_path, command, environment)
        assert doctest.OutputChecker().check_output(shown, printed, SAME), (
            f"{command} shows\n{printed}\nand the page\n{shown}"
        )
    for database, services, name in (
        ("shop", "sell:SERVICES", "call-or-cast-shop.svg"),
        ("wrong", "shop_wrong.services:SERVICES", "call-or-cast-wrong.svg"),
    ):
        draw = f"callcast advise --broker sqlite:///{database}.db {services} --format svg"
        drawn = fromstring(run(tmp_path, draw, environment))
        assert said_of(drawn) == said_of(fromstring((DOCS / name).read_text())), draw


def test_its_arithmetic_is_that_of_the_adviser() -> None:
    for number, block in enumerate(each for each in blocks("python") if each.startswith(">>>")):
        test = doctest.DocTestParser().get_doctest(block, {}, f"block {number}", None, 0)
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0


def test_it_teaches_every_rule_and_every_mistake_of_the_wrong_shop() -> None:
    rows = re.findall(r"^\| ([RA]\d+) \|", PAGE, re.MULTILINE)
    assert rows == [*(code for code in TEXTS if code.startswith("R")), *MISTAKES]


def test_its_advice_toml_is_read() -> None:
    whole = "\n".join(blocks("toml"))
    assert tomllib.loads(whole)
    advised = advice_file.read(whole.encode(), "advice.toml")
    assert [each.code for each in advised.suppress] == ["A15"]
    assert list(advised.interactions) == ["orders->mail"]
