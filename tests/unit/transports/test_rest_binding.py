"""Request values to path, query and body, and back."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict
from urllib.parse import unquote

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct
from pydantic import BaseModel, Field

from callcast.codecs import JsonCodec
from callcast.core.contract import Operation
from callcast.core.errors import Misuse, Remote, Undecodable
from callcast.transports.rest import Exchange
from callcast.transports.routing import Routes

codec = JsonCodec()


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


class Search(Struct):
    user_id: int
    text: str = ""
    tags: list[str] = []
    page: int | None = None
    exact: bool = False
    since: date | None = None
    limit: float = 1.5
    size: Size = Size.SMALL
    kind: Literal["a", "b"] = "a"
    id: uuid.UUID | None = None
    price: Decimal | None = None
    few: tuple[int, ...] = ()
    maybe: list[int] | None = None
    either: int | str | None = None


class Renamed(Struct, rename="camel"):
    user_id: str
    first_name: str = ""


@dataclasses.dataclass
class Move:
    piece: str
    to: list[int]


class Patch(TypedDict):
    piece: str
    to: str


@attrs.define
class Look:
    piece: str


class Model(BaseModel):
    piece: str
    count: int = Field(alias="n")
    when: date | None = None


class Deep(Struct):
    piece: str
    inner: Search


def exchange(http: str, request: Any, response: Any = None) -> Exchange:
    return Exchange(Operation("x.y", request, response, http=http), codec)


def there_and_back(http: str, form: Any, value: object) -> tuple[str, bytes | None, object]:
    """What goes over the wire, and what comes out behind it."""
    one = exchange(http, form)
    wire = one.write(value)
    path, _, query = wire.target.partition("?")
    found = Routes([one]).find(path)
    assert found is not None, path
    return wire.target, wire.body, one.read(found[1], query, wire.body or b"")


def test_fields_go_into_path_and_query_and_come_back() -> None:
    search = Search(
        7, "größe & co", ["a", "b/c"], 2, True, date(2026, 11, 23), 2.5, Size.LARGE, "b",
        uuid.UUID(int=1), Decimal("1.10"), (1, 2), [3], 5,
    )  # fmt: skip
    target, body, back = there_and_back("GET /users/{user_id}/orders", Search, search)
    assert target == (
        "/users/7/orders?text=gr%C3%B6%C3%9Fe%20%26%20co&tags=a&tags=b%2Fc&page=2&exact=true"
        "&since=2026-11-23&limit=2.5&size=2&kind=b&id=00000000-0000-0000-0000-000000000001"
        "&price=1.10&few=1&few=2&maybe=3&either=5"
    )
    assert body is None
    assert back == msgspec.structs.replace(search, either="5")  # text stays text where it may


def test_none_is_left_out_of_the_query() -> None:
    target, _, back = there_and_back("DELETE /users/{user_id}", Search, Search(7))
    assert "page" not in target
    assert "maybe" not in target
    assert back == Search(7)


def test_names_on_the_wire_are_those_of_the_type() -> None:
    target, _, back = there_and_back("GET /users/{userId}", Renamed, Renamed("u", "Ann"))
    assert target == "/users/u?firstName=Ann"
    assert back == Renamed("u", "Ann")


@pytest.mark.parametrize(
    ("form", "value", "body"),
    [
        (Move, Move("king", [1, 2]), b'{"to":[1,2]}'),
        (Patch, {"piece": "king", "to": "e4"}, b'{"to":"e4"}'),
        (Look, Look("king"), b"{}"),
        (Model, Model(piece="king", n=2, when=date(2026, 1, 2)), b'{"n":2,"when":"2026-01-02"}'),
    ],
)
def test_what_is_not_in_the_path_goes_into_the_body(form: Any, value: object, body: bytes) -> None:
    target, sent, back = there_and_back("PUT /pieces/{piece}", form, value)
    assert (target, sent) == ("/pieces/king", body)
    assert back == value


def test_a_model_is_bound_to_a_query() -> None:
    value = Model(piece="king", n=2, when=date(2026, 1, 2))
    target, _, back = there_and_back("GET /pieces/{piece}", Model, value)
    assert target == "/pieces/king?n=2&when=2026-01-02"
    assert back == value


@pytest.mark.parametrize(
    ("form", "value", "target"),
    [
        (str, "a b/c?d#e%", "/users/a%20b%2Fc%3Fd%23e%25"),
        (int, -3, "/users/-3"),
        (float, 0.5, "/users/0.5"),
        (bool, True, "/users/true"),
        (uuid.UUID, uuid.UUID(int=2), "/users/00000000-0000-0000-0000-000000000002"),
        (Size, Size.LARGE, "/users/2"),
        (date, date(2026, 1, 2), "/users/2026-01-02"),
        (Annotated[int, Meta(ge=1)], 4, "/users/4"),
    ],
)
def test_a_scalar_is_the_one_placeholder(form: Any, value: object, target: str) -> None:
    assert there_and_back("GET /users/{user_id}", form, value) == (target, None, value)


def test_without_placeholders_the_whole_value_is_the_body() -> None:
    assert there_and_back("POST /x", list[int], [1]) == ("/x", b"[1]", [1])
    assert there_and_back("POST /x", str, "tea") == ("/x", b'"tea"', "tea")
    one = Exchange(Operation("stock.of", str, int), codec)
    assert one.write("tea").target == "/callcast/stock.of"


def test_a_request_of_none_sends_nothing() -> None:
    assert there_and_back("POST /reset", None, None) == ("/reset", None, None)
    assert there_and_back("GET /all", None, None) == ("/all", None, None)


def test_literal_text_of_a_path_is_encoded_on_both_sides() -> None:
    target, _, back = there_and_back("GET /grüße/{name}.json", str, "a.json")
    assert target == "/gr%C3%BC%C3%9Fe/a.json.json"
    assert back == "a.json"


@given(st.text(min_size=1).filter(lambda text: text not in {".", ".."} and text.isprintable()))
def test_any_text_comes_back_from_a_path(text: str) -> None:
    target, _, back = there_and_back("GET /users/{user_id}/x", str, text)
    assert back == text
    assert target.count("/") == 3
    assert unquote(target) == f"/users/{text}/x"


@given(st.lists(st.text()), st.text())
def test_any_text_comes_back_from_a_query(tags: list[str], text: str) -> None:
    value = Search(1, text, tags)
    assert there_and_back("GET /users/{user_id}", Search, value)[2] == value


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_a_path_value_that_would_name_another_resource_is_misuse(value: str) -> None:
    with pytest.raises(Misuse, match="another resource"):
        exchange("DELETE /users/{user_id}", str).write(value)


@pytest.mark.parametrize(
    ("http", "form", "why"),
    [
        ("GET /users/{id}", Renamed, "no scalar field 'id'"),
        ("GET /users/{tags}", Search, "no scalar field 'tags'"),
        ("GET /users/{inner}", Deep, "no scalar field 'inner'"),
        ("GET /pieces/{piece}", Deep, "field 'inner' would go into the query"),
        ("GET /a/{b}/{c}", int, "a type with fields"),
        ("GET /a", int, "a type with fields"),
        ("GET /a", dict[str, int], "a type with fields"),
        ("POST /a/{b}", list[int], "a type with fields"),
        ("GET /a/{b}", None, "has nothing for {b}"),
        ("GET /a/{x}", msgspec.defstruct("Row", [("x", int)], array_like=True), "a type with fields"),
        ("GET /a", msgspec.defstruct("Or", [("x", list[int] | int)]), "would go into the query"),
    ],
)  # fmt: skip
def test_a_contract_that_cannot_be_bound_is_misuse(http: str, form: Any, why: str) -> None:
    with pytest.raises(Misuse, match=why):
        exchange(http, form)


def test_head_has_no_answer_to_decode() -> None:
    assert exchange("HEAD /users/{id}", int).answer(200, b"") is None
    with pytest.raises(Misuse, match="HEAD"):
        exchange("HEAD /users/{id}", int, bool)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=x", "$.page"),
        ("exact=maybe", "$.exact"),
        ("limit=nan", "$.limit"),
        ("limit=much", "$.limit"),
        ("few=1&few=x", "$.few[1]"),
        ("since=yesterday", "$.since"),
        ("size=9", "$.size"),
        ("kind=c", "$.kind"),
        ("page=1&page=2", "$.page"),
        ("page=" + "9" * 50, "$.page"),
    ],
)
def test_a_query_that_does_not_decode_names_its_field(query: str, field: str) -> None:
    with pytest.raises(Undecodable) as caught:
        exchange("GET /users/{user_id}", Search).read(["7"], query, b"")
    assert caught.value.field == field


def test_a_path_that_does_not_decode_names_its_field() -> None:
    with pytest.raises(Undecodable) as caught:
        exchange("GET /users/{user_id}", Search).read(["x"], "", b"")
    assert caught.value.field == "$.user_id"
    with pytest.raises(Undecodable) as caught:
        exchange("GET /users/{user_id}", int).read(["x"], "", b"")
    assert caught.value.field == "$.user_id"


def test_an_empty_list_comes_back_though_it_leaves_no_trace_in_the_query() -> None:
    form = msgspec.defstruct("Ids", [("ids", list[int])])
    assert there_and_back("GET /many", form, form([])) == ("/many", None, form([]))


def test_unknown_query_parameters_are_ignored_and_their_number_is_bounded() -> None:
    one = exchange("GET /users/{user_id}", Search)
    assert one.read(["7"], "utm=1&utm=2", b"") == Search(7)
    with pytest.raises(Undecodable, match="query parameters"):
        one.read(["7"], "&".join(["a=1"] * 1_001), b"")


def test_a_placeholder_wins_over_a_body_member_of_its_name() -> None:
    one = exchange("PUT /pieces/{piece}", Look)
    assert one.read(["king"], "", b'{"piece":"pawn"}') == Look("king")
    assert one.read(["king"], "", b"") == Look("king")


def test_an_empty_body_is_null() -> None:
    assert exchange("POST /x", int | None).read([], "", b"") is None
    with pytest.raises(Undecodable):
        exchange("POST /x", int).read([], "", b"")


def test_a_value_of_another_type_is_misuse() -> None:
    with pytest.raises(Misuse, match="no scalar"):
        exchange("GET /users/{user_id}", str).write([1])
    with pytest.raises(Misuse, match="fields"):
        exchange("GET /users/{user_id}", Search).write("x")
    with pytest.raises(Misuse, match="no scalar"):
        exchange("PUT /pieces/{piece}", Patch).write({"to": "e4"})


def test_an_answer_that_is_not_what_the_contract_says_is_remote_and_not_retried() -> None:
    one = exchange("GET /users/{id}", int, Renamed)
    with pytest.raises(Remote, match=r"\$\.userId") as caught:
        one.answer(200, b'{"userId":3}')
    assert caught.value.status == 502
    assert not caught.value.retryable
    assert caught.value.data == {"field": "$.userId", "status": 200}


def test_an_empty_answer_is_none() -> None:
    assert exchange("GET /users/{id}", int, str | None).answer(204, b"") is None
    assert exchange("GET /users/{id}", int, None).answer(200, b"<html>") is None
    with pytest.raises(Remote):
        exchange("GET /users/{id}", int, str).answer(204, b"")
