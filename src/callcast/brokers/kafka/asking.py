"""Names of the driver's administration that its own type information leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from confluent_kafka.admin import (
    AdminClient,
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage] - documented under this name
)

__all__ = ["EARLIEST", "LATEST", "AdminClient", "OffsetSpec", "at_time"]

# Its methods have no annotations.
_latest = cast("Callable[[], OffsetSpec]", OffsetSpec.latest)
_earliest = cast("Callable[[], OffsetSpec]", OffsetSpec.earliest)
_for_timestamp = cast("Callable[[int], OffsetSpec]", OffsetSpec.for_timestamp)

LATEST: OffsetSpec = _latest()
EARLIEST: OffsetSpec = _earliest()


def at_time(wall: float) -> OffsetSpec:
    """The first record that is not older than this."""
    return _for_timestamp(max(0, int(wall * 1_000)))
