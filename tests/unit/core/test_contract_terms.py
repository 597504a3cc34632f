"""A contract that cannot be kept is refused where it is written, with what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callcast.core.binding import HttpBinding, callcast_path
from callcast.core.contract import Event, Operation
from callcast.core.errors import Misuse
from callcast.core.names import NAME_MAX, checked_name
from callcast.core.needs import Needs


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Operation("", str, int), "use letters, digits"),
        (lambda: Operation("a b", str, int), "use letters, digits"),
        (lambda: Operation("a", str, int, service="*"), "service of operation 'a'"),
        (lambda: Operation("a", str, int, deadline=0), "must be above 0 seconds"),
        (lambda: Operation("a", str, int, deadline=float("nan")), "must be above 0 seconds"),
        (lambda: Operation("a", str, int, http="FETCH /a"), "write a method"),
        (lambda: Event("orders..placed", str), "without '..'"),
        (lambda: Event("orders.placed", str, version=0), "must be 1 or more"),
        (lambda: Event("orders.placed", str, on_dead="forget"), "must be 'skip' or 'park'"),  # type: ignore[arg-type]
        (lambda: Event("orders.placed", str, on_dead="park"), "so the event needs key="),
        (lambda: Needs(peak_rate=0), "must be above 0"),
        (lambda: Needs(needed_within=-1), "must be above 0"),
        (lambda: Needs(work=0), "must be above 0"),
        (lambda: Needs(slo=100), "between 0 and 100"),
        (lambda: Needs(slo=0), "between 0 and 100"),
    ],
)
def test_what_cannot_be_kept_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(Misuse, match=re.escape(said)):
        make()


def test_needs_that_say_nothing_or_make_sense_are_taken() -> None:
    assert Needs() == Needs()
    assert Needs(slo=99.9, peak_rate=100, work=0.2, needed_within=1).slo == 99.9


def test_an_operation_belongs_to_the_service_at_the_front_of_its_name() -> None:
    operation = Operation("inventory.stock", str, int)
    assert operation.service == "inventory"
    assert operation.topic == "inventory.stock"
    assert Operation("stock", str, int).service == "stock"
    assert Operation("inventory.stock", str, int, service="shop").service == "shop"


@pytest.mark.parametrize(
    ("operation", "is_repeatable"),
    [
        (Operation("a", str, int), False),
        (Operation("a", str, int, idempotent=True), True),
        (Operation("a", str, int, once=True), True),
        (Operation("a", str, int, http="GET /a"), True),
        (Operation("a", str, int, http="HEAD /a"), True),
        (Operation("a", str, int, http="DELETE /a"), False),
    ],
)
def test_only_what_is_harmless_twice_may_be_repeated(
    operation: Operation[str, int], is_repeatable: bool
) -> None:
    assert operation.is_repeatable is is_repeatable


def test_a_later_version_of_an_event_has_a_topic_of_its_own() -> None:
    assert Event("orders.placed", str).topic == "orders.placed"
    assert Event("orders.placed", str, version=2).topic == "orders.placed.v2"


def test_an_operation_without_a_binding_is_posted_to_a_path_of_ours() -> None:
    assert Operation("inventory.stock", str, int).binding == callcast_path("inventory.stock")
    assert callcast_path("inventory.stock").template == "/callcast/inventory.stock"
    assert callcast_path("inventory.stock").has_body


def test_a_binding_is_a_method_and_a_path_with_names_in_it() -> None:
    binding = HttpBinding.parse("GET /users/{user_id}/orders/{order_id}.json")
    assert binding.method == "GET"
    assert binding.params == ("user_id", "order_id")
    assert binding.parts == ("/users/", "/orders/", ".json")
    assert binding.is_safe
    assert not binding.has_body
    assert not HttpBinding.parse("PUT /users/{user_id}").is_safe


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("GET", "write a method"),
        ("get /a", "write a method"),
        ("GET a", "write a method"),
        ("GET /a?b=1", "without query"),
        ("GET /a b", "write a method"),
        ("GET /{}", "a name once"),
        ("GET /{a}/{a}", "a name once"),
        ("GET /{a", "a name once"),
        ("GET /{a-b}", "a name once"),
        ("GET /a}/{b}", "a name once"),
        ("GET /a}", "'}' without '{'"),
    ],
)
def test_a_binding_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(Misuse, match=re.escape(said)):
        HttpBinding.parse(text)


@given(st.text())
def test_a_name_that_is_taken_has_nothing_that_a_broker_could_read_as_a_pattern(name: str) -> None:
    try:
        checked_name(name, "name")
    except Misuse:
        return
    assert name.isascii()
    assert not set(name) & set("*#>$ /\\:\n\0")
    assert ".." not in name
    assert len(name) <= NAME_MAX


@given(
    st.from_regex(
        r"[a-zA-Z0-9](-?[a-zA-Z0-9]){0,20}(\.[a-zA-Z0-9_]*[a-zA-Z0-9]){0,3}", fullmatch=True
    )
)
def test_a_name_of_letters_digits_and_single_dots_is_taken(name: str) -> None:
    assert checked_name(name, "name") == name
