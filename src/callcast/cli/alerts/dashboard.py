"""A dashboard for Grafana, from the same names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_GROUP = "messaging_destination_name, messaging_consumer_group_name"
_LEGEND = "{{messaging_destination_name}}/{{messaging_consumer_group_name}}"
PANELS: Sequence[tuple[str, str, str, str]] = (
    (
        "Calls a second",
        "sum by (callcast_operation) (rate(callcast_call_duration_seconds_count[5m]))",
        "{{callcast_operation}}",
        "reqps",
    ),
    (
        "Calls, p99",
        (
            "histogram_quantile(0.99, sum by (le, callcast_operation)"
            " (rate(callcast_call_duration_seconds_bucket[5m])))"
        ),
        "{{callcast_operation}}",
        "s",
    ),
    (
        "Calls that fail",
        (
            "sum by (callcast_operation)"
            ' (rate(callcast_call_duration_seconds_count{error_type!=""}[5m]))'
            " / sum by (callcast_operation) (rate(callcast_call_duration_seconds_count[5m]))"
        ),
        "{{callcast_operation}}",
        "percentunit",
    ),
    (
        "Breakers",
        "max by (callcast_peer) (callcast_circuit_state_ratio)",
        "{{callcast_peer}}",
        "short",
    ),
    (
        "Messages a second",
        f"sum by ({_GROUP}) (rate(messaging_client_consumed_messages_total[5m]))",
        _LEGEND,
        "ops",
    ),
    (
        "Handling, p99",
        (
            f"histogram_quantile(0.99, sum by (le, {_GROUP})"
            " (rate(messaging_process_duration_seconds_bucket[5m])))"
        ),
        _LEGEND,
        "s",
    ),
    (
        "Time in the queue, p99",
        (
            f"histogram_quantile(0.99, sum by (le, {_GROUP})"
            " (rate(callcast_queue_time_seconds_bucket[5m])))"
        ),
        _LEGEND,
        "s",
    ),
    ("Messages that wait", f"max by ({_GROUP}) (callcast_consumer_lag)", _LEGEND, "short"),
    ("Age of the oldest", f"max by ({_GROUP}) (callcast_consumer_lag_time_seconds)", _LEGEND, "s"),
    ("Dead letters", f"max by ({_GROUP}) (callcast_dlq_depth)", _LEGEND, "short"),
    (
        "Oldest row of an outbox",
        "max by (callcast_service) (callcast_outbox_age_seconds)",
        "{{callcast_service}}",
        "s",
    ),
    (
        "Retry decisions",
        "sum by (callcast_operation, outcome) (rate(callcast_retry_attempts_total[5m]))",
        "{{callcast_operation}} {{outcome}}",
        "ops",
    ),
)
"""Title, query, legend and unit of each panel."""
COLUMNS, WIDE, HIGH = 3, 8, 7


def dashboard() -> dict[str, Any]:
    """As Grafana imports it; the data source is asked for then."""
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "title": "callcast",
        "uid": "callcast",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus"}],
        },
        "panels": [
            {
                "id": number + 1,
                "type": "timeseries",
                "title": title,
                "datasource": source,
                "gridPos": {
                    "h": HIGH,
                    "w": WIDE,
                    "x": number % COLUMNS * WIDE,
                    "y": number // COLUMNS * HIGH,
                },
                "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
                "targets": [
                    {"refId": "A", "expr": query, "legendFormat": legend, "datasource": source}
                ],
            }
            for number, (title, query, legend, unit) in enumerate(PANELS)
        ],
    }
