"""What the consumers of one member hold."""

from __future__ import annotations

import math

from msgspec import Struct

from callcast.brokers.kafka.window import Item


class Lease(Struct, eq=False, gc=False):
    """The handle of a delivery."""

    item: Item
    token: int
    until: float


class Hand:
    """What one consumer holds."""

    def __init__(self) -> None:
        self.leases: dict[int, Lease] = {}
        self.check_at: float = math.inf  # no lease ends earlier; renewing only makes them later
