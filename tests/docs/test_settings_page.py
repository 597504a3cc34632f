"""The page of settings names every setting and every exit code."""

from __future__ import annotations

import re

from readme_parts import ROOT

from callcast.runtime.settings import Settings, Table

PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_every_setting_is_on_the_page_and_no_other() -> None:
    named = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE))
    assert named == {name.replace("_", "-") for name in Table.__struct_fields__}


def test_the_defaults_on_the_page_are_the_defaults() -> None:
    said = dict(re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", PAGE, re.MULTILINE))
    defaults = Settings()
    for name, value in said.items():
        default = getattr(defaults, name.replace("-", "_"), None)
        if default is not None:
            assert float(value) == float(default), name
    assert {"lease", "slots", "drain", "watchdog"} <= said.keys()
