"""What tests of failures share."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from rabbitmq_parts import opened
from servers import OwnRabbitMq

from callcast.brokers.rabbitmq import RabbitBroker


@pytest.fixture
async def broker(a_rabbitmq_of_its_own: OwnRabbitMq) -> AsyncGenerator[RabbitBroker]:
    async with opened(a_rabbitmq_of_its_own.url) as one:
        yield one
