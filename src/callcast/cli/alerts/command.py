"""``callcast alerts``: the rules and the dashboard, to be written to a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import click

from callcast.cli.alerts.dashboard import dashboard
from callcast.cli.alerts.rules import rule_file

FORMATS: Mapping[str, Callable[[], dict[str, Any]]] = MappingProxyType(
    {"prometheus": rule_file, "grafana": dashboard}
)


@click.command(
    epilog="""\b
Examples:
  callcast alerts > /etc/prometheus/callcast-rules.yml
  callcast alerts --format grafana > callcast-dashboard.json

What each alert means and what to do when it fires: docs/alerts.md. JSON is YAML too: Prometheus
reads it as it is.
"""
)
@click.option(
    "--format", "form", type=click.Choice(list(FORMATS)), default="prometheus", show_default=True
)
def alerts(*, form: str) -> None:
    """Print alert rules for Prometheus, or a dashboard for Grafana."""
    click.echo(json.dumps(FORMATS[form](), indent=2))
