"""How much of everything ``bench/brokers.py`` does."""

from __future__ import annotations

from collections.abc import Sequence

from brokers_work import IN_FLIGHT, PREFETCH, RATE, WARM
from work import BODY_BYTES


class Sizes:
    """Numbers of rounds and messages; peers that are slow get a share of the messages.

    `peers`: who takes part beside callcast; empty for all.
    """

    def __init__(
        self, rounds: int, messages: int, *, peers: Sequence[str] = (), is_quick: bool = False
    ) -> None:
        self.peers = peers
        self.rounds = 1 if is_quick else rounds
        self.warmups = 0 if is_quick else 1
        self.messages = 500 if is_quick else messages
        self.one_by_one = 20 if is_quick else 1_000
        self.latencies = 40 if is_quick else 600
        self.latency_rounds = 1 if is_quick else 5
        self.slow = 80 if is_quick else 800
        """Messages that take their handler a while."""
        self.many = 4_000 if is_quick else 1_000_000
        self.few = 2_000 if is_quick else 10_000
        self.waiting_rounds = 1 if is_quick else 9

    def those(self, *peers: str) -> Sequence[str]:
        """callcast, and who of these takes part."""
        return ["callcast", *(one for one in peers if not self.peers or one in self.peers)]

    def plain(self) -> dict[str, object]:
        return {
            **vars(self),
            "rates": "messages per second of the wall",
            "cpu": "seconds of the process per 10,000",
            "body_bytes": BODY_BYTES,
            "in_flight": IN_FLIGHT,
            "prefetch_of_peers": PREFETCH,
            "published_before_the_watch": WARM,
            "latency_rate": RATE,
        }
