"""The page of brokers says what their traits say, and leaves out none."""

from __future__ import annotations

import re

import pytest
from readme_parts import ROOT

from callcast.brokers.rabbitmq.names import LANES_MAX
from callcast.policies.recovery import spoken
from callcast.ports.broker import Parks, Traits
from callcast.runtime import registry
from callcast.runtime.clock import AsyncioClock

PAGE = (ROOT / "docs" / "brokers.md").read_text(encoding="utf-8")
URLS = {
    "memory": "memory://",
    "sqlite": "sqlite:///nowhere.db",
    "amqp": "amqp://localhost/",
    "kafka": "kafka://localhost:9092",
}


def column(scheme: str) -> dict[str, str]:
    """What is said of one broker, by the row."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.partition("## Order")[0].splitlines()
        if line.startswith("|")
    ]
    number = next(n for n, head in enumerate(rows[0]) if f"`{scheme}://`" in head)
    return {row[0]: row[number] for row in rows[2:]}


def traits(scheme: str) -> Traits:
    return registry.open_broker(URLS[scheme], AsyncioClock()).traits


def test_every_broker_there_is_has_a_column() -> None:
    heads = re.findall(r"`([a-z]+)://`", PAGE.partition("|---|")[0])
    assert set(heads) == set(URLS) == set(registry._KNOWN) - {"amqps", "kafkas"}


@pytest.mark.parametrize("scheme", URLS)
@pytest.mark.parametrize(
    ("row", "trait"),
    [
        ("survives the end of the process", "durable"),
        ("several processes", "shared"),
        ("what is done stays done after a crash of the broker at once", "durable_settle"),
        ("one dead letter for a message that dies again", "collapses_letters"),
    ],
)
def test_it_says_what_the_traits_say(scheme: str, row: str, trait: str) -> None:
    assert column(scheme)[row].startswith("yes" if getattr(traits(scheme), trait) else "no")


@pytest.mark.parametrize("scheme", URLS)
def test_where_a_key_can_be_parked_is_said(scheme: str) -> None:
    broker = registry.open_broker(URLS[scheme], AsyncioClock())
    [row] = re.findall(r"^\| a message is dead .*$", PAGE, re.MULTILINE)
    assert (f"`{scheme}://`" in row) is isinstance(broker, Parks)


def test_the_numbers_of_servers_are_their_numbers() -> None:
    assert f"has {LANES_MAX} lanes" in PAGE
    assert spoken(traits("amqp").hold_max) == spoken(traits("kafka").hold_max) == "20 min"
    assert "20 minutes in all" in PAGE
