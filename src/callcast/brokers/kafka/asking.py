"""Names of the driver's administration that its own type information leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeAlias, cast

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,  # pyright: ignore[reportPrivateImportUsage] - documented so
    ConfigEntry,  # pyright: ignore[reportPrivateImportUsage] - documented so
    ConfigResource,  # pyright: ignore[reportPrivateImportUsage] - documented so
    ConsumerGroupDescription,  # pyright: ignore[reportPrivateImportUsage] - documented so
    ListOffsetsResultInfo,  # pyright: ignore[reportPrivateImportUsage] - documented so
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage] - documented so
    TopicDescription,  # pyright: ignore[reportPrivateImportUsage] - documented so
)
from confluent_kafka.cimpl import NewTopic

from callcast.core.errors import Misuse

__all__ = ["EARLIEST", "LATEST", "Administrator", "Spec", "administrator", "at_time", "kept_for"]

Spec: TypeAlias = OffsetSpec
"""Which offset of a partition is asked for."""


class Administrator(Protocol):
    """The methods that we use of the driver's `AdminClient`, with what their futures hold."""

    def poll(self, timeout: float) -> int:
        """Have the callbacks called that wait."""
        ...

    def create_topics(
        self, new_topics: list[NewTopic], *, request_timeout: float, operation_timeout: float
    ) -> Mapping[str, Future[None]]:
        """Make topics."""
        ...

    def delete_topics(self, topics: list[str]) -> Mapping[str, Future[None]]:
        """Delete topics."""
        ...

    def describe_topics(
        self, topics: TopicCollection, *, request_timeout: float
    ) -> Mapping[str, Future[TopicDescription]]:
        """Look at topics."""
        ...

    def incremental_alter_configs(
        self, resources: list[ConfigResource], *, request_timeout: float
    ) -> Mapping[ConfigResource, Future[None]]:
        """Change settings of topics."""
        ...

    def delete_records(
        self, topic_partition_offsets: list[TopicPartition], *, request_timeout: float
    ) -> Mapping[TopicPartition, Future[object]]:
        """Delete what lies before these offsets."""
        ...

    def list_topics(self, topic: str, *, timeout: float) -> object:
        """Ask which partitions a topic has and who leads them. Blocks."""
        ...

    def list_offsets(
        self,
        topic_partition_offsets: dict[TopicPartition, OffsetSpec],
        *,
        isolation_level: IsolationLevel,
        request_timeout: float,
    ) -> Mapping[TopicPartition, Future[ListOffsetsResultInfo]]:
        """Find offsets of partitions."""
        ...

    def alter_consumer_group_offsets(
        self,
        alter_consumer_group_offsets_request: list[ConsumerGroupTopicPartitions],
        *,
        request_timeout: float,
    ) -> Mapping[str, Future[ConsumerGroupTopicPartitions]]:
        """Set what a group has committed."""
        ...

    def delete_consumer_groups(self, group_ids: list[str]) -> Mapping[str, Future[None]]:
        """Delete groups."""
        ...

    def describe_consumer_groups(
        self, group_ids: Sequence[str], *, request_timeout: float
    ) -> Mapping[str, Future[ConsumerGroupDescription]]:
        """Look at groups."""
        ...


def kept_for(topic: str, seconds: float) -> ConfigResource:
    """That a topic keeps its records for so long; below 0: until they are deleted."""
    value = str(int(seconds * 1_000)) if seconds >= 0 else "-1"
    entry = ConfigEntry("retention.ms", value, incremental_operation=AlterConfigOpType.SET)
    return ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])


def administrator(settings: Mapping[str, object]) -> Administrator:
    """Open an administrator's connection; raises `Misuse` for settings that cannot be."""
    # The driver's types know neither callbacks among the settings nor what its futures hold.
    known = cast("dict[str, str | int | float | bool]", settings)
    try:
        return cast("Administrator", AdminClient(known))
    except KafkaException as error:
        raise Misuse(f"the broker URL cannot be used: {error.args[0].str()}") from error


# Its methods have no annotations.
_latest = cast("Callable[[], OffsetSpec]", OffsetSpec.latest)
_earliest = cast("Callable[[], OffsetSpec]", OffsetSpec.earliest)
_for_timestamp = cast("Callable[[int], OffsetSpec]", OffsetSpec.for_timestamp)

LATEST: OffsetSpec = _latest()
EARLIEST: OffsetSpec = _earliest()


def at_time(wall: float) -> OffsetSpec:
    """The first record that is not older than this."""
    return _for_timestamp(max(0, int(wall * 1_000)))
