"""Permissions of a Kafka that are granted while a program runs: it goes on as soon as it may."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import pytest
from broker_parts import fetched, message, until
from confluent_kafka.admin import (
    AclBinding,  # pyright: ignore[reportPrivateImportUsage] - documented so
    AclBindingFilter,  # pyright: ignore[reportPrivateImportUsage] - documented so
    AclOperation,  # pyright: ignore[reportPrivateImportUsage] - documented so
    AclPermissionType,  # pyright: ignore[reportPrivateImportUsage] - documented so
    ResourcePatternType,  # pyright: ignore[reportPrivateImportUsage] - documented so
    ResourceType,  # pyright: ignore[reportPrivateImportUsage] - documented so
)
from kafka_ground import asked, opened
from servers import Started

from callcast.core.errors import CallcastError, NotSent, Unpublished
from callcast.core.outcome import DONE
from callcast.ports.broker import Source

pytestmark = pytest.mark.timeout(90)

IDLE = 1.5
"""Seconds in which a new producer is refused as well, while nothing is sent."""
ALL = [("topic", "describe"), ("topic", "read"), ("group", "describe"), ("group", "read")]


def binding(kind: str, operation: str) -> AclBinding:
    return AclBinding(
        ResourceType[kind.upper()],
        "*",
        ResourcePatternType.LITERAL,
        "User:stranger",
        "*",
        AclOperation[operation.upper()],
        AclPermissionType.ALLOW,
    )


async def grant(server: Started, rights: Sequence[tuple[str, str]]) -> None:
    rules = [binding(*right) for right in rights]
    await asked(server.url, lambda admin: admin.create_acls(rules))


async def deny(server: Started) -> None:
    anything = AclBindingFilter(
        ResourceType.ANY,
        None,
        ResourcePatternType.ANY,
        "User:stranger",
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    await asked(server.url, lambda admin: admin.delete_acls([anything]))


async def test_who_may_not_publish_does_so_as_soon_as_it_may(guarded_kafka: Started) -> None:
    """The driver's producer does not get over a refusal: it has to be made anew."""
    source = Source(f"t{uuid.uuid4().hex[:8]}", "group")
    host, password = guarded_kafka.listeners["SASL_PLAINTEXT"], guarded_kafka.users["stranger"]
    url = f"kafka://stranger:{password}@{host}"
    await grant(guarded_kafka, ALL)
    try:
        async with (
            opened(guarded_kafka.url, "partitions=1") as owner,
            opened(url, "mechanism=SCRAM-SHA-512") as stranger,
        ):
            await owner.ensure([source.topic], [source])
            for _ in range(3):
                with pytest.raises(Unpublished) as told:
                    await stranger.publish([message("no", source.topic)])
                assert isinstance(told.value.errors[0], NotSent), told.value
                assert "uthoriz" in str(told.value)
                await asyncio.sleep(IDLE)
            await grant(guarded_kafka, [("topic", "write")])

            async def published() -> bool:
                try:
                    await stranger.publish([message("yes", source.topic)])
                except CallcastError:
                    return False
                return True

            await until(published)
            consumer = await stranger.consume(source)
            found = await fetched(consumer, 1)
            assert {one.message.id for one in found} == {"yes"}
            await consumer.settle([(one, DONE) for one in found])
    finally:
        await deny(guarded_kafka)
