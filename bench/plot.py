"""Rates on RabbitMQ and Kafka as pictures, from what the benches wrote: ``python bench/plot.py``.

Writes ``docs/rabbitmq.svg`` and ``docs/kafka.svg``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pygal
from pygal.style import Style

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
PLOTS = {"rabbitmq": "RabbitMQ, quorum queue", "kafka": "Kafka, one partition"}
WHATS = ("publish", "consume")
COLOURS = ("#0b6e4f", "#c9a227", "#7a8b99", "#b5482a", "#5b4b8a")
"""Of callcast, then of its peers."""
DATED = re.compile("<!--.*?-->")
"""The day is in a comment: the same figures are the same file."""
FONT = "system-ui, sans-serif"


def drawn(bench: str) -> str:
    """The medians of one result file, as SVG."""
    result = json.loads((RESULTS / f"{bench}.json").read_text(encoding="utf-8"))
    rates: dict[str, dict[str, float]] = {}
    for name, figure in result["figures"].items():
        who, _, what = name.partition(": ")
        rates.setdefault(who, {})[what] = figure["median"]
    style = Style(
        background="white", plot_background="white", colors=COLOURS, font_family=FONT,
        value_font_size=14, label_font_size=14, legend_font_size=14, title_font_size=16,
    )  # fmt: skip
    chart = pygal.HorizontalBar(
        style=style, js=[], width=800, height=380, print_values=True, legend_at_bottom=True,
        show_x_guides=False, show_y_guides=False, show_x_labels=False, value_formatter=readable,
        title=f"{PLOTS[bench]}: messages per second, median of {result['rounds']} rounds",
    )  # fmt: skip
    chart.uuid = bench  # else one by chance
    chart.x_labels = WHATS
    for who in sorted(rates, key=lambda who: (who != "callcast", who)):
        chart.add(who, [rates[who].get(what) for what in WHATS])
    return DATED.sub("", str(chart.render(is_unicode=True))) + "\n"


def readable(rate: float | None) -> str:
    return "" if rate is None else f"{float(f'{rate:.3g}'):,.0f}"


def main() -> int:
    for bench in PLOTS:
        (DOCS / f"{bench}.svg").write_text(drawn(bench), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
