"""A message of another type than the contract's is refused before it is decoded."""

from __future__ import annotations

import pytest

from callcast.core.errors import Undecodable
from callcast.core.message import Message
from callcast.core.work import Kind, Work
from callcast.policies.validate import Validate


async def proceed(work: Work) -> object:
    return work.value


def decode(body: bytes) -> int:
    return int(body)


async def test_a_message_of_the_contracts_type_goes_on() -> None:
    work = Work(Kind.CONSUME, "a", value=b"7", message=Message("1", "s", "a", "a", b"7"))
    assert await Validate("a", decode)(work, proceed) == 7


def test_a_message_of_another_type_is_undecodable_though_it_would_fit() -> None:
    work = Work(Kind.CONSUME, "a", value=b"7", message=Message("1", "s", "b", "a", b"7"))
    with pytest.raises(Undecodable, match="unknown type 'b'"):
        Validate("a", decode)(work, proceed)


async def test_work_without_a_message_goes_on() -> None:
    work = Work(Kind.CONSUME, "a", value=b"7")
    assert await Validate("a", decode)(work, proceed) == 7
