"""How far the groups of a broker are behind, for Prometheus, under the names of its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from callcast.ports.broker import Lag

LABELS = ("messaging_destination_name", "messaging_consumer_group_name")
Row = tuple[str, str, Lag]
"""Topic, group, and how far it is behind."""


FAMILIES: Sequence[tuple[str, str, Callable[[Lag], float]]] = (
    ("callcast_queue_depth", "Ready and delayed messages.", lambda lag: lag.ready + lag.delayed),
    (
        "callcast_consumer_lag",
        "Messages not yet settled.",
        lambda lag: lag.ready + lag.delayed + lag.leased,
    ),
    ("callcast_consumer_lag_time_seconds", "Age of the oldest of them.", lambda lag: lag.oldest),
    ("callcast_dlq_depth", "Dead letters.", lambda lag: lag.dead),
)
"""Name, description, and which number of a lag it is."""


class _Queues(Collector):
    """The gauges of one look; without rows the broker could not be asked."""

    def __init__(self, rows: Sequence[Row] | None) -> None:
        self._rows = rows

    def collect(self) -> Iterable[Metric]:
        """One family for each number."""
        is_up = float(self._rows is not None)
        yield GaugeMetricFamily("callcast_broker_up", "Whether it could be asked.", value=is_up)
        for name, said, number in FAMILIES:
            family = GaugeMetricFamily(name, said, labels=LABELS)
            for topic, group, lag in self._rows or ():
                family.add_metric((topic, group), float(number(lag)))
            yield family


def queue_page(rows: Sequence[Row] | None) -> tuple[str, bytes]:
    """Content type and body; None of rows is a broker that could not be asked."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Queues(rows))
    return CONTENT_TYPE_LATEST, generate_latest(registry)
