"""Which alerts there are: their queries, from the names that the exporter writes.

Every one has its section in ``docs/alerts.md``: what it means, what to look at, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

RUNBOOK = "docs/alerts.md#"
"""Where the runbook of an alert begins; its name in small letters follows."""
DRAIN = 1800
"""Seconds that a backlog may take to drain at the present rate."""
OLDEST = 600
"""Seconds that a message may wait to be handled."""
OUTBOX = 120
"""Seconds that a row may wait in an outbox."""
OBJECTIVE = 0.999
"""Share of served calls that are answered without a fault of the server."""
_GROUP = "messaging_destination_name, messaging_consumer_group_name"


class Alert(Struct, frozen=True, kw_only=True):
    """One alert."""

    name: str
    query: str
    holds: str
    """How long it must be so."""
    severity: Literal["page", "ticket"]
    summary: str
    description: str

    def rule(self) -> dict[str, Any]:
        """As Prometheus wants it."""
        return {
            "alert": self.name,
            "expr": self.query,
            "for": self.holds,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": RUNBOOK + self.name.lower(),
            },
        }


def _failing(window: str) -> str:
    """The share of served calls that ended with a fault of the server, over a window."""
    served, faults = (
        "http_server_request_duration_seconds_count",
        'http_response_status_code=~"5.."',
    )
    bad = f"sum by (job) (rate({served}{{{faults}}}[{window}]))"
    return f"{bad} / sum by (job) (rate({served}[{window}]))"


def _burning(factor: float, long: str, short: str) -> str:
    limit = f"{factor * (1 - OBJECTIVE):.6g}"
    return f"({_failing(long)}) > {limit} and ({_failing(short)}) > {limit}"


ALERTS: Sequence[Alert] = (
    Alert(
        name="CallcastDeadLettersGrow",
        query=f"sum by ({_GROUP}) (increase(callcast_dlq_messages_total[10m])) > 0"
        f" or max by ({_GROUP}) (delta(callcast_dlq_depth[10m])) > 0",
        holds="0m",
        severity="ticket",
        summary="Messages of {{ $labels.messaging_consumer_group_name }} went dead",
        description="{{ $value }} messages of {{ $labels.messaging_destination_name }} could not be"
        " handled in the last ten minutes and wait in the dead letters.",
    ),
    Alert(
        name="CallcastConsumerFallsBehind",
        query=f"max by ({_GROUP}) (callcast_consumer_lag) / on ({_GROUP})"
        f" (sum by ({_GROUP}) (rate(messaging_client_consumed_messages_total[5m])) > 0) > {DRAIN}",
        holds="10m",
        severity="ticket",
        summary="{{ $labels.messaging_consumer_group_name }} does not keep up",
        description="At its present rate it needs {{ $value | humanizeDuration }} for what waits.",
    ),
    Alert(
        name="CallcastOldestMessageTooOld",
        query=f"max by ({_GROUP}) (callcast_consumer_lag_time_seconds) > {OLDEST}",
        holds="5m",
        severity="page",
        summary="A message for {{ $labels.messaging_consumer_group_name }} waits too long",
        description="The oldest message of {{ $labels.messaging_destination_name }} is"
        " {{ $value | humanizeDuration }} old.",
    ),
    Alert(
        name="CallcastBreakerOpen",
        query="max by (callcast_peer) (callcast_circuit_state_ratio) == 1",
        holds="1m",
        severity="page",
        summary="Calls to {{ $labels.callcast_peer }} are not made",
        description="Its breaker has been open for a minute: calls fail at once.",
    ),
    Alert(
        name="CallcastErrorBudgetBurnsFast",
        query=_burning(14.4, "1h", "5m"),
        holds="2m",
        severity="page",
        summary="{{ $labels.job }} fails too often",
        description="At this rate a month's error budget is gone in two days:"
        " {{ $value | humanizePercentage }} of the calls fail.",
    ),
    Alert(
        name="CallcastErrorBudgetBurns",
        query=_burning(6, "6h", "30m"),
        holds="15m",
        severity="ticket",
        summary="{{ $labels.job }} fails more often than it may",
        description="At this rate a month's error budget is gone in five days:"
        " {{ $value | humanizePercentage }} of the calls fail.",
    ),
    Alert(
        name="CallcastOutboxStuck",
        query=f"max by (callcast_service) (callcast_outbox_age_seconds) > {OUTBOX}",
        holds="2m",
        severity="page",
        summary="Messages of {{ $labels.callcast_service }} do not leave its outbox",
        description="The oldest of them is {{ $value | humanizeDuration }} old: what it tells of is"
        " committed, and nobody has heard of it.",
    ),
    Alert(
        name="CallcastNoHeartbeat",
        query="up == 0",
        holds="2m",
        severity="page",
        summary="{{ $labels.job }} on {{ $labels.instance }} does not answer",
        description="Prometheus has not been able to ask it for two minutes.",
    ),
)


def rule_file() -> dict[str, Any]:
    """The whole file for Prometheus."""
    return {"groups": [{"name": "callcast", "rules": [alert.rule() for alert in ALERTS]}]}
