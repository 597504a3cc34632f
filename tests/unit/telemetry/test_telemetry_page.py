"""The page lists every metric, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from callcast.telemetry import names

PAGE = Path(__file__).parents[3] / "docs" / "telemetry.md"
METRIC = re.compile(r"^(http|messaging|callcast)\.")
SOURCE = Path(names.__file__).read_text()


def test_the_page_lists_every_metric() -> None:
    _, _, metrics = SOURCE.partition("# Metrics of the conventions.")
    named = set(re.findall(r'= "([a-z_.]+)"', metrics.partition("# Headers.")[0]))
    listed = set(re.findall(r"^\| `([a-z_.]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert {name for name in named if METRIC.match(name)} == listed
