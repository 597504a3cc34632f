"""What an event bound to others' exchange or queue says; without a server."""

from __future__ import annotations

import pytest

from callcast.core.amqp import TO, Address, Amqp, Bound, address_of, id_of
from callcast.core.contract import Event
from callcast.core.errors import Misuse
from callcast.core.message import Message
from callcast.runtime.service import Service


def message(**headers: str) -> Message:
    return Message("id", "s", "t", "t", b"", headers=headers)


def test_the_source_of_a_handler_names_the_queue_and_no_handlers_settings() -> None:
    service = Service("billing")
    amqp = Amqp(queue="crm.billing", dead_letter_exchange="crm.dlx", identify="message_id")

    @service.on(Event("crm.customers", str, amqp=amqp, version=2))
    async def take(customer: str) -> None: ...

    bound = Bound("crm.billing", "crm.customers", "crm.dlx", may_drop=False)
    assert service.handlers[0].source.bound == bound


def test_an_event_that_is_only_published_has_no_queue() -> None:
    assert Amqp(exchange="crm", routing_key="a").bound("crm.customers") is None


@pytest.mark.parametrize("key", ['a "quoted" one', "ключ", ""])
def test_the_address_travels_in_a_header(key: str) -> None:
    header = Amqp(exchange="crm", routing_key="customer.{key}").header(key)
    assert address_of({TO: header}) == Address("crm", f"customer.{key}")
    assert header.isascii()


def test_a_message_for_callcast_has_no_address() -> None:
    assert address_of({}) is None


def test_the_id_is_where_the_binding_says() -> None:
    assert id_of("", message()) == "id"
    assert id_of("message_id", message()) == "id"
    assert id_of("x-event", message(**{"x-event": "7"})) == "7"
    assert id_of("x-event", message()) == ""
    assert id_of(lambda one: one.topic, message()) == "t"


@pytest.mark.parametrize(
    ("amqp", "is_keyed", "said"),
    [
        (Amqp(), False, "neither an exchange nor a queue"),
        (Amqp(queue="q"), True, "leave key= out"),
        (Amqp(exchange="x", routing_key="a.{key}"), False, "give it key="),
        (Amqp(exchange=""), False, "wants a routing_key="),
    ],
)
def test_what_cannot_be_bound_is_refused_where_it_is_written(
    amqp: Amqp, is_keyed: bool, said: str
) -> None:
    with pytest.raises(Misuse, match=said):
        Event("crm.customers", str, key=str.upper if is_keyed else None, amqp=amqp)
