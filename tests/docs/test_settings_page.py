"""The page of settings names every setting and every exit code."""

from __future__ import annotations

import re
from dataclasses import fields

from readme_parts import ROOT

from callcast.brokers.rabbitmq.address import Options
from callcast.runtime.settings import Settings, Table

PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
RABBITMQ = "## The URL of a RabbitMQ"


def test_every_setting_is_on_the_page_and_no_other() -> None:
    named = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE.partition(RABBITMQ)[0], re.MULTILINE))
    assert named == {name.replace("_", "-") for name in Table.__struct_fields__}


def test_the_defaults_on_the_page_are_the_defaults() -> None:
    said = dict(re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", PAGE, re.MULTILINE))
    defaults = Settings()
    for name, value in said.items():
        default = getattr(defaults, name.replace("-", "_"), None)
        if default is not None:
            assert float(value) == float(default), name
    assert {"lease", "slots", "drain", "watchdog"} <= said.keys()


def test_every_option_of_a_rabbitmq_is_on_the_page_with_its_default() -> None:
    section = PAGE.partition(RABBITMQ)[2].partition("\n# ")[0]
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| ([^|]+) \|", section, re.MULTILINE)
    said = {name: default for names, default in rows for name in re.findall("[a-z_]+", names)}
    defaults = {field.name: field.default for field in fields(Options)}
    assert said.keys() == defaults.keys()
    numbers = {name: text for name, text in said.items() if text.isdecimal()}
    assert numbers.keys() == {"heartbeat", "connect_wait", "retain"}
    assert all(float(text) == defaults[name] for name, text in numbers.items())
