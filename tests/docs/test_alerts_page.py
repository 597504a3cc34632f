"""Every alert has its runbook, and every command in one is a command."""

from __future__ import annotations

import re
from pathlib import Path

from operator_parts import run

from callcast.cli.alerts.rules import ALERTS, RUNBOOK

PAGE = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()


def test_every_alert_has_its_section_where_its_link_says() -> None:
    titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert titles == [alert.name for alert in ALERTS]
    for alert in ALERTS:
        link = alert.rule()["annotations"]["runbook_url"]
        assert link == f"{RUNBOOK}{alert.name.lower()}"


def test_every_command_of_the_page_is_one() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) > len(ALERTS)
    for command in commands:
        _, *words = command.partition(" > ")[0].split()
        named = run(*words, "--help")
        assert named.exit_code == 0, command
        if words[0] in {"alerts", "explain"}:
            assert run(*words).exit_code == 0, command
