"""The alerts, as promtool and a real Prometheus see them; the shop fires the first of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from servers import Started, need, tool
from shop_parts import buy, fetched, shop, until

from callcast.cli.alerts.dashboard import PANELS, dashboard
from callcast.cli.alerts.rules import ALERTS, rule_file

GROUP = 'messaging_destination_name="t",messaging_consumer_group_name="g"'
BURNING = 'http_server_request_duration_seconds_count{job="shop",http_response_status_code="%s"}'

CASES: dict[str, tuple[list[tuple[str, str]], str, list[str]]] = {
    "CallcastDeadLettersGrow": (
        [(f"callcast_dlq_depth{{{GROUP}}}", "0x10 1x20")],
        "12m",
        [f"callcast_dlq_depth{{{GROUP}}}", "3x60"],
    ),
    "CallcastConsumerFallsBehind": (
        [
            (f"callcast_consumer_lag{{{GROUP}}}", "9000x60"),
            (f"messaging_client_consumed_messages_total{{{GROUP}}}", "0+60x60"),
        ],
        "40m",
        [f"callcast_consumer_lag{{{GROUP}}}", "9x60"],
    ),
    "CallcastOldestMessageTooOld": (
        [(f"callcast_consumer_lag_time_seconds{{{GROUP}}}", "900x60")],
        "20m",
        [f"callcast_consumer_lag_time_seconds{{{GROUP}}}", "9x60"],
    ),
    "CallcastBreakerOpen": (
        [('callcast_circuit_state_ratio{callcast_peer="bank"}', "1x60")],
        "5m",
        ['callcast_circuit_state_ratio{callcast_peer="bank"}', "2x60"],
    ),
    "CallcastErrorBudgetBurnsFast": (
        [(BURNING % 500, "0+5x90"), (BURNING % 200, "0+100x90")],
        "80m",
        [BURNING % 200, "0+100x90"],
    ),
    "CallcastErrorBudgetBurns": (
        [(BURNING % 500, "0+1x500"), (BURNING % 200, "0+100x500")],
        "450m",
        [BURNING % 200, "0+100x500"],
    ),
    "CallcastOutboxStuck": (
        [('callcast_outbox_age_seconds{callcast_service="orders"}', "300x60")],
        "10m",
        ['callcast_outbox_age_seconds{callcast_service="orders"}', "3x60"],
    ),
    "CallcastNoHeartbeat": (
        [('up{job="shop",instance="a"}', "0x60")],
        "5m",
        ['up{job="shop",instance="a"}', "1x60"],
    ),
}
"""By alert: series that fire it, when that is looked at, and a series that does not."""


def test_promtool_takes_the_rules_as_the_command_prints_them(tmp_path: Path) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "callcast", "alerts"], capture_output=True, text=True, check=True
    ).stdout
    (tmp_path / "rules.yml").write_text(printed)
    done = promtool(tmp_path, "check", "rules", "rules.yml")
    assert f"{len(ALERTS)} rules found" in done


def test_each_alert_fires_when_it_should_and_not_else(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(json.dumps(rule_file()))
    assert set(CASES) == {alert.name for alert in ALERTS}
    tests = []
    for name, (series, at, quiet) in CASES.items():
        fires = [{"series": one, "values": values} for one, values in series]
        tests.append(case(name, fires, at, fires=True))
        tests.append(case(name, [{"series": quiet[0], "values": quiet[1]}], at, fires=False))
    whole = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(json.dumps(whole))
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "tests.yml")


def case(name: str, series: list[dict[str, str]], at: str, *, fires: bool) -> dict[str, Any]:
    """Promtool compares whole alerts; a query over its own ALERTS series asks for the name alone."""
    asked = {
        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
        "eval_time": at,
        "exp_samples": [{"labels": "{}", "value": 1 if fires else 0}],
    }
    return {"interval": "1m", "input_series": series, "promql_expr_test": [asked]}


def promtool(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [tool("promtool"), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_name_in_rules_and_dashboard_is_one_that_is_written() -> None:
    """As in the page on telemetry, in the exporter's spelling."""
    page = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
    known = {
        name.replace(".", "_") for name in re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE)
    }
    queries = [alert.query for alert in ALERTS] + [query for _, query, _, _ in PANELS]
    used = {
        name
        for query in queries
        for name in re.findall(r"\b(?:callcast|http|messaging)_[a-z_]+(?=[\[{)\s]|$)", query)
    } - set(re.findall(r"by \(([a-z_, ]+)\)", " ".join(queries)))
    endings = r"(_seconds)?(_total|_count|_bucket|_ratio)?$"
    labels = {"callcast_peer", "callcast_operation", "callcast_service", "http_response_status_code",
              "messaging_destination_name", "messaging_consumer_group_name"}  # fmt: skip
    names = {re.sub(endings, "", name) for name in used - labels}
    assert names <= known, names - known
    assert len(names) > 8


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    board = dashboard()
    assert len({panel["id"] for panel in board["panels"]}) == len(PANELS)
    assert all(panel["targets"][0]["expr"] for panel in board["panels"])
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == len(PANELS)


@pytest.fixture(scope="module")
def prometheus(request: pytest.FixtureRequest) -> Started:
    return need(request, "prometheus")


@pytest.mark.battery
@pytest.mark.timeout(400)
def test_a_real_prometheus_fires_when_the_shop_is_poisoned(
    tmp_path: Path, prometheus: Started
) -> None:
    targets = Path(prometheus.more["targets_folder"])
    (targets / "callcast.rules").write_text(json.dumps(rule_file()))
    reload = urllib.request.Request(f"{prometheus.url}/-/reload", method="POST")
    with urllib.request.urlopen(reload, timeout=30) as answer:
        assert answer.status == 200
    with shop(tmp_path, f"sqlite:///{tmp_path / 'shop.db'}") as urls:
        places = [url.removeprefix("http://") for url in urls.values()]
        (targets / "shop.json").write_text(json.dumps([{"targets": places}]))
        buy(urls["orders"], "o-1")
        until(lambda: asked(prometheus, "callcast_dlq_depth == 0"), "no depth was scraped")
        assert firing(prometheus) == set()
        buy(urls["orders"], "o-2", sku="piano")
        until(lambda: "CallcastDeadLettersGrow" in firing(prometheus), "the alert does not fire")


def asked(prometheus: Started, query: str) -> list[object]:
    quoted = urllib.request.quote(query)  # type: ignore[attr-defined]
    found: Any = fetched(f"{prometheus.url}/api/v1/query?query={quoted}")
    result: list[object] = found["data"]["result"]
    return result


def firing(prometheus: Started) -> set[str]:
    found: Any = fetched(f"{prometheus.url}/api/v1/alerts")
    alerts = found["data"]["alerts"]
    return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}
