"""A publish that RabbitMQ refuses to this user: whose fault it is, and of which publish."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from callcast.brokers.rabbitmq import mail
from callcast.brokers.rabbitmq.address import Endpoint
from callcast.brokers.rabbitmq.faults import ACCESS_REFUSED, ChannelLost, of_refusal
from callcast.core.errors import NotPermitted, NotSent, Unanswered
from callcast.core.message import Message

AT = Endpoint("rabbit", 5672, "/", "clerk", "secret")
HOUSE = cast(
    "Any", SimpleNamespace(topology=SimpleNamespace(refused=lambda e, w: of_refusal(e, w, AT)))
)


def refusal(exchange: str) -> ChannelLost:
    text = (
        f"ACCESS_REFUSED - write access to exchange '{exchange}' in vhost '/' refused for 'clerk'"
    )
    return ChannelLost(ACCESS_REFUSED, text)


@pytest.mark.parametrize(
    ("group", "exchange", "where"),
    [(None, "orders", "'orders'"), ("mail", "amq.default", "'mail'")],
)
def test_a_refused_exchange_is_a_missing_right(
    group: str | None, exchange: str, where: str
) -> None:
    """What goes to one group goes over the exchange without a name, straight to its queue."""
    message = Message("1", "tests", "orders", "orders", b"", group=group)
    error = mail._of_loss(HOUSE, message, refusal(exchange))
    assert isinstance(error, NotSent)
    assert isinstance(error.__cause__, NotPermitted)
    assert f"did not let 'clerk' publish to {where}" in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(("group", "exchange"), [(None, "amq.default"), ("mail", "orders")])
def test_a_channel_that_another_publish_ended_says_nothing_of_this_one(
    group: str | None, exchange: str
) -> None:
    message = Message("1", "tests", "orders", "orders", b"", group=group)
    assert isinstance(mail._of_loss(HOUSE, message, refusal(exchange)), Unanswered)
