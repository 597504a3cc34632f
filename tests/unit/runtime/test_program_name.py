"""What a bus without a service and without a name is called."""

from __future__ import annotations

import sys

import pytest

from callcast.runtime.settings import program_name


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("/srv/shop/nightly.py", "nightly"),
        ("/usr/bin/callcast", "callcast"),
        ("/site-packages/callcast/__main__.py", "callcast"),
        ("-c", "python"),
        ("-", "python"),
        ("", "python"),
    ],
)
def test_a_bus_is_named_after_its_program(
    argument: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [argument])
    assert program_name() == name
