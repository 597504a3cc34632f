"""A message of another type than the contract's is refused before it is decoded."""

from __future__ import annotations

import pytest

from callcast.core.errors import Undecodable
from callcast.core.message import Message
from callcast.core.work import Kind, Work
from callcast.policies.known import Known


async def proceed(work: Work) -> Work:
    return work


async def test_a_message_of_the_contracts_type_goes_on() -> None:
    work = Work(Kind.CONSUME, "a", message=Message("1", "s", "a", "a", b""))
    assert await Known("a")(work, proceed) is work


def test_a_message_of_another_type_is_undecodable() -> None:
    work = Work(Kind.CONSUME, "a", message=Message("1", "s", "b", "a", b""))
    with pytest.raises(Undecodable, match="unknown type 'b'"):
        Known("a")(work, proceed)


async def test_work_without_a_message_goes_on() -> None:
    work = Work(Kind.CONSUME, "a")
    assert await Known("a")(work, proceed) is work
