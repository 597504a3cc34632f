"""JSON there and back, and what is said when it does not come back."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
from typing import Annotated, Any, TypedDict
from uuid import UUID

import attrs
import pytest
from msgspec import Meta, Struct
from pydantic import BaseModel, Field, field_validator

from callcast.codecs import JsonCodec
from callcast.codecs.foreign import decoded_foreign
from callcast.core.errors import Misuse, Undecodable


class Item(Struct):
    sku: str
    count: int = 1


class Order(Struct):
    id: str
    items: list[Item] = []
    labels: dict[str, int] = {}


class Strict(Struct, forbid_unknown_fields=True):
    a: int


class Node(Struct):
    name: str
    children: list[Node] = []


class Cash(Struct, tag=True):
    cents: int


class Card(Struct, tag=True):
    number: str


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Address(TypedDict):
    city: str


@attrs.define
class Parcel:
    weight: float


class Color(enum.Enum):
    RED = "red"


class Line(BaseModel):
    sku: str
    count: int = Field(gt=0)

    @field_validator("sku")
    @classmethod
    def known(cls, sku: str) -> str:
        if sku == "coffee":
            raise ValueError("we have tea only")
        return sku


class Cart(BaseModel):
    lines: list[Line]
    note: str = Field("", alias="remark")


class Plain:
    """No type that a contract may mention."""


codec = JsonCodec()


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (Order, Order("o-1", [Item("tea", 2)], {"a": 1})),
        (Point, Point(1, 2)),
        (Address, {"city": "Graz"}),
        (Parcel, Parcel(1.5)),
        (int, 7),
        (str | None, None),
        (None, None),
        (Cash | Card, Card("4711")),
        (list[Color], [Color.RED]),
        (tuple[int, str], (1, "a")),
        (UUID, UUID(int=5)),
        (Node, Node("a", [Node("b")])),
        (Cart, Cart(lines=[Line(sku="tea", count=1)], remark="soon")),
        (list[Cart], [Cart(lines=[])]),
        (dict[str, Line], {"first": Line(sku="tea", count=1)}),
        (Any, {"a": [1, None]}),
    ],
)
def test_what_is_encoded_comes_back_equal(form: object, value: object) -> None:
    body = codec.encoder(form)(value)
    assert codec.decoder(form)(body) == value
    assert codec.converter(form)(codec.plain(value)) == value


@pytest.mark.parametrize(
    ("form", "body", "field", "detail"),
    [
        (Order, b'{"id":"o","items":[{"sku":"a"},{"sku":1}]}', "$.items[1].sku", "Expected `str`"),
        (Order, b'{"id":"o","items":[{}]}', "$.items[0].sku", "missing required field"),
        (Order, b"{}", "$.id", "missing required field"),
        (Strict, b'{"a":1,"b":2}', "$.b", "unknown field"),
        (Order, b'{"id":"o","labels":{"x":"y"}}', "$.labels[...]", "Expected `int`"),
        (Cart, b'{"lines":[{"sku":"tea","count":0}]}', "$.lines[0].count", "greater than 0"),
        (list[Line], b'[{"sku":"coffee","count":1}]', "$[0].sku", "we have tea only"),
        (int, b'"7"', "$", "Expected `int`"),
        (Order, b"{", "$", "truncated"),
        (Order, b"", "$", "truncated"),
        (str, b'"\xff"', "$", "UTF-8"),
        (int, b"9" * 100_000, "$", "out of range"),
    ],
)
def test_what_does_not_decode_names_its_field(
    form: object, body: bytes, field: str, detail: str
) -> None:
    with pytest.raises(Undecodable, match=detail) as caught:
        codec.decoder(form)(body)
    assert caught.value.field == field


def test_a_converter_names_the_field_too() -> None:
    with pytest.raises(Undecodable) as caught:
        codec.converter(Order)({"id": "o", "items": [{"sku": 3}]})
    assert caught.value.field == "$.items[0].sku"


def test_a_lax_converter_takes_text_for_numbers_and_booleans() -> None:
    convert = codec.converter(dict[str, int | bool | None], lax=True)
    assert convert({"a": "12", "b": "null"}) == {"a": 12, "b": None}
    with pytest.raises(Undecodable):
        codec.converter(int)("12")


def test_unknown_fields_are_ignored() -> None:
    assert codec.decoder(Item)(b'{"sku":"tea","new":{"x":[1]}}') == Item("tea")


@pytest.mark.parametrize("opener", [b"[", b'{"a":'])
@pytest.mark.parametrize("form", [Any, Order, Cart, None])
def test_a_body_nested_a_hundred_thousand_deep_is_undecodable(opener: bytes, form: object) -> None:
    body = b'{"id":"o","zz":' + opener * 100_000 if form is Order else opener * 100_000
    with pytest.raises(Undecodable):
        codec.decoder(form)(body)


def test_a_value_nested_without_end_is_misuse() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(Misuse):
        codec.encoder(Any)(endless)
    with pytest.raises(Misuse):
        codec.plain(endless)


@pytest.mark.parametrize("form", [Plain, list[Plain], dict[str, Plain], Order | Item, "Nowhere"])
def test_a_type_without_json_is_misuse_when_it_is_compiled(form: object) -> None:
    for compile_it in (codec.encoder, codec.decoder, codec.converter):
        with pytest.raises(Misuse, match="cannot be written as JSON"):
            compile_it(form)


def test_a_value_without_json_is_misuse_naming_its_type() -> None:
    with pytest.raises(Misuse, match="Plain"):
        codec.encoder(Any)(Plain())
    with pytest.raises(Misuse):
        codec.encoder(str)("\ud800")
    with pytest.raises(Misuse):
        codec.plain({(1, 2): 3})


def test_unions_tuples_and_named_tuples_are_looked_into() -> None:
    for form in (
        tuple[Plain, int],
        tuple[Plain, ...],
        Plain | None,
        Annotated[Plain, Meta(description="x")],
    ):
        with pytest.raises(Misuse):
            codec.decoder(form)


def test_the_hooks_know_nothing_but_models() -> None:
    with pytest.raises(TypeError, match="Plain"):
        decoded_foreign(Plain, 1)


def test_the_package_works_without_importing_pydantic() -> None:
    code = (
        "import sys\n"
        "from callcast.codecs import JsonCodec\n"
        "assert JsonCodec().decoder(list[int])(b'[1]') == [1]\n"
        "assert 'pydantic' not in sys.modules, 'pydantic was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
