"""What tests of whole programs share."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from rabbitmq_parts import stranger


@pytest.fixture
def theirs(rabbitmq_url: str) -> Generator[BlockingChannel]:
    with stranger(rabbitmq_url) as channel:
        yield channel
